// The preview follows the form: what stands in it is shown a moment after the last change.
const form = document.getElementById("editor");
const button = document.getElementById("try");
const frame = document.querySelector("iframe.preview");
let timer;

const show = () => {
  clearTimeout(timer);
  timer = setTimeout(() => form.requestSubmit(button), 500);
};

if (form && button && frame) {
  button.hidden = true;
  form.addEventListener("input", show);
  // Selects above the frame belong to the form by their `form` attribute, so their events pass it by.
  for (const each of document.querySelectorAll('#preview select[form="editor"]')) {
    each.addEventListener("change", () => form.requestSubmit(button));
  }
}
document.getElementById("scheme")?.addEventListener("change", (event) => {
  frame.dataset.scheme = event.target.value;
});

// The preview follows the form: what stands in it is shown a moment after the last change.
const form = document.getElementById("editor");
const button = document.getElementById("try");
const scheme = document.getElementById("scheme");
let frame = document.querySelector("iframe.preview");
let timer;

// A fresh frame each time: going to another page in the old one would be a step for the Back button.
const show = () => {
  const fresh = frame.cloneNode(false);
  fresh.removeAttribute("src");
  frame.replaceWith(fresh);
  frame = fresh;
  form.requestSubmit(button);
};
const soon = () => {
  clearTimeout(timer);
  timer = setTimeout(show, 500);
};

// A law that is ticked brings its place along, one that is not takes it away.
const region = document.querySelector('#preview select[name="preview_region"]');
const offer = () => {
  const laws = new FormData(form).getAll("regimes");
  for (const option of region.options) {
    option.hidden = option.disabled = option.dataset.law !== "" && !laws.includes(option.dataset.law);
  }
  if (region.selectedOptions[0]?.disabled) {
    region.value = [...region.options].find((each) => !each.disabled).value;
  }
};

if (form && button && frame) {
  button.hidden = true;
  form.addEventListener("input", offer);
  form.addEventListener("input", soon);
  // Selects above the frame belong to the form by their `form` attribute, so their events pass it by.
  for (const each of document.querySelectorAll('#preview select[form="editor"]')) {
    each.addEventListener("change", show);
  }
}
scheme?.addEventListener("change", () => {
  frame.dataset.scheme = scheme.value;
});

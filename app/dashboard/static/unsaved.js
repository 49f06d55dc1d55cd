// A form with a `data-unsaved` mark shows it while something in the form is not as the page came,
// and the browser asks before such a page is left by anything but that form's own Save.
const marks = [...document.querySelectorAll("form [data-unsaved]")];
let saving = null;

// Against what the page says, not against what stood there first: a browser that goes back to a
// page fills in again what was typed.
const isChanged = (field) => {
  if (field.type === "checkbox") return field.checked !== field.defaultChecked;
  if (field.type === "color") return field.value !== field.defaultValue.toLowerCase();
  if (field.options) return !field.options[field.selectedIndex]?.defaultSelected;
  return field.value !== field.defaultValue;
};
const isUnsaved = (form) => [...form.querySelectorAll("input, select, textarea")].some(isChanged);

const ask = (event) => {
  const saved = saving;
  saving = null; // whoever stays is asked the next time
  if (marks.some((mark) => mark.form !== saved && isUnsaved(mark.form))) event.preventDefault();
};
const look = () => {
  for (const mark of marks) mark.hidden = !isUnsaved(mark.form);
  // Only while it is needed: in some browsers a listener keeps a page from being gone back to at once.
  if (marks.some((mark) => !mark.hidden)) addEventListener("beforeunload", ask);
  else removeEventListener("beforeunload", ask);
};

for (const { form } of marks) {
  form.addEventListener("input", look);
  form.addEventListener("submit", (event) => {
    if (!event.submitter?.formTarget) saving = form; // the preview is shown in a frame
  });
}
addEventListener("pageshow", () => {
  saving = null;
  look();
});

// Opens the consent widget's dialog from the page's own button; without the widget the button stays hidden.
(() => {
  const button = document.querySelector("[data-open-choices]");
  let tries = 0;
  const look = () => {
    if (globalThis.quittance && typeof globalThis.quittance.open === "function") {
      button.hidden = false;
      button.addEventListener("click", () => globalThis.quittance.open());
    } else if (tries++ < 100) {
      setTimeout(look, 100);
    }
  };
  if (button) look();
})();

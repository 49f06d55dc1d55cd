// Shows live what the banner holds back or lets through; also copy buttons and the customer search.
(() => {
  const root = document.documentElement;
  for (const each of document.querySelectorAll("[data-needs-script]")) each.hidden = false;

  const hasSource = (name) => Boolean(document.querySelector(`[data-tracker="${name}"]`)?.getAttribute("src"));
  const hasRun = {
    inline: () => "ranInline" in root.dataset,
    external: () => "ranExternal" in root.dataset,
    pixel: () => hasSource("pixel"),
    film: () => hasSource("film"),
  };
  const words = { blocked: "Blocked", open: "Released", stopped: "Stopped" };

  const stateOf = (gate) => {
    const may = window.quittance?.has?.(gate.dataset.needs) ?? false;
    if (hasRun[gate.dataset.gate]()) return may ? "open" : "stopped";
    return "blocked";
  };

  const sum = (states) => {
    const open = states.filter((each) => each === "open").length;
    if (states.includes("stopped")) return "You took your word back: what had begun to run is gone with the next page.";
    if (!open) return "Nothing that tracks has run: all of it is held back until you choose.";
    if (open === states.length) return "All of it released, because you agreed.";
    return `${open} of ${states.length} released by your choice; the rest is held back.`;
  };

  const show = () => {
    const gates = [...document.querySelectorAll("[data-gate]")];
    if (!gates.length) return;
    const states = gates.map(stateOf);
    gates.forEach((gate, index) => {
      const chip = gate.querySelector(".chip");
      if (chip.dataset.state === states[index]) return;
      chip.dataset.state = states[index];
      chip.textContent = words[states[index]];
    });
    const said = document.getElementById("gates-sum");
    if (said.textContent !== sum(states)) said.textContent = sum(states);
    const id = window.quittance?.consentId;
    const place = document.querySelector("[data-consent-id]");
    const text = id ? `Your record: ${id}` : "";
    if (place && place.textContent !== text) place.textContent = text;
  };

  document.addEventListener("demo:ran", show);
  document.addEventListener("quittance:change", () => setTimeout(show));
  new MutationObserver(show).observe(document.body, { attributes: true, attributeFilter: ["src"], childList: true, subtree: true });
  setInterval(show, 500); // what a blocked or late banner script leaves unsaid
  show();

  const copy = async (button) => {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl-C";
      getSelection().selectAllChildren(button.previousElementSibling ?? button.parentElement);
    }
    setTimeout(() => { button.textContent = said; }, 1600);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.copy) copy(button);
    if (button?.dataset.act === "withdraw") window.quittance?.withdraw();
  });

  const search = document.querySelector("[data-find]");
  search?.addEventListener("input", () => {
    const rows = [...document.getElementById(search.dataset.find).tBodies[0].rows];
    const wanted = search.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    document.querySelector("[data-found]").textContent = wanted ? `${rows.filter((row) => !row.hidden).length} found` : "";
  });
})();

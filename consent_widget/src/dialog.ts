/** The preferences: a real modal `<dialog>`, so the browser keeps focus inside and gives it back. */
import type { Config, Purpose } from "./config";
import { button, h, inLanguage } from "./dom";
import { type Choices, honoursGpc, type State } from "./state";
import { policyLink, rejectLabel } from "./view";

export interface DialogActions {
  accept(): void;
  reject(): void;
  save(choices: Choices): void;
  withdraw(): void;
}

function record({ texts, language }: Config, { decision }: State): (Node | string)[] {
  if (!decision?.consentId) return [];
  const { consentId, decidedAt } = decision;
  const date = new Date(decidedAt);
  let day = date.toISOString().slice(0, 10);
  try {
    day = date.toLocaleDateString(language, { dateStyle: "long" });
  } catch {
    // A language tag this browser does not know: the ISO day is understood everywhere.
  }
  const template = texts.record.includes("{id}") ? texts.record : `${texts.record}: {id} ({date})`;
  return template
    .split(/(\{id\}|\{date\})/)
    .map((part) =>
      part === "{id}" ? h("code", { dir: "ltr" }, consentId) : part === "{date}" ? day : part,
    );
}

/** Opens the dialog; it removes itself when it closes. */
export function openDialog(
  config: Config,
  state: State,
  root: ShadowRoot,
  actions: DialogActions,
): void {
  if (root.querySelector("dialog[open]")) return;
  const { texts } = config;
  const boxes = new Map<string, HTMLInputElement>();

  const row = (purpose: Purpose, index: number): HTMLElement => {
    const describedBy = `about-${index}`;
    const box = h("input", {
      type: "checkbox",
      name: purpose.id,
      "data-purpose-id": purpose.id,
      "aria-describedby": describedBy,
    });
    box.checked = purpose.required || state.choices[purpose.id] === true;
    box.disabled = purpose.required;
    if (!purpose.required) boxes.set(purpose.id, box);
    const always = purpose.required ? [h("small", {}, texts.always_on)] : [];
    return h(
      "li",
      {},
      h("label", {}, h("span", {}, purpose.name), ...always, box),
      h("p", { id: describedBy, class: "muted" }, purpose.description),
    );
  };

  const leave =
    (act: () => void): (() => void) =>
    () => {
      dialog.close();
      act();
    };
  const save = (): void =>
    actions.save(Object.fromEntries([...boxes].map(([id, box]) => [id, box.checked])));
  const close = button("close", "", () => dialog.close());
  close.setAttribute("aria-label", texts.close);

  const rows = config.purposes.map(row);
  const mayWithdraw = state.decision && [...boxes.values()].some((box) => box.checked);
  const withdraw = button("withdraw", texts.withdraw, leave(actions.withdraw));
  withdraw.className = "link";
  const proof = record(config, state);

  const dialog = h(
    "dialog",
    { "aria-labelledby": "preferences", ...inLanguage(config) },
    h("div", { class: "top" }, h("h2", { id: "preferences" }, texts.dialog_title), close),
    h(
      "div",
      { class: "middle" },
      h("p", { class: "muted" }, texts.dialog_body),
      ...(honoursGpc(config, state)
        ? [h("p", { class: "gpc", role: "note" }, texts.gpc_notice)]
        : []),
      h("ul", {}, ...rows),
      h("div", { class: "more" }, ...policyLink(config), ...(mayWithdraw ? [withdraw] : [])),
      ...(proof.length ? [h("p", { class: "record muted" }, ...proof)] : []),
    ),
    h(
      "div",
      { class: "bottom" },
      button("reject", rejectLabel(config), leave(actions.reject)),
      button("accept", texts.accept, leave(actions.accept)),
      button("save", texts.save, leave(save)),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  root.append(dialog);
  dialog.showModal();
}

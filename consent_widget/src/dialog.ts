/**
 * The preferences: a real modal `<dialog>`, so the browser keeps focus inside and gives it back.
 * A file of its own, loaded when somebody is about to open it.
 */
import type { Config, Purpose } from "./config";
import css from "./dialog.css?inline";
import { button, dayOf, h, inLanguage, sheet } from "./dom";
import { type Choices, type Decision, granted, honoursGpc, type State } from "./state";
import { policyLink, rejectLabel } from "./view";

export { identify } from "./identify";

const styled = new WeakSet<ShadowRoot>();

export interface DialogActions {
  accept(): void;
  /** `off`: what is switched off. */
  reject(off: Choices): void;
  save(choices: Choices): void;
  withdraw(): void;
  /** It is gone from the page. */
  closed(): void;
}

/** The choice that holds; where none does, the last one, whose refusals do. */
const proven = ({ decision, earlier }: State): Decision | null => decision ?? earlier;

function record({ texts, language }: Config, state: State): (Node | string)[] {
  const { consentId, decidedAt } = proven(state) ?? {};
  if (!consentId || !decidedAt) return [];
  const day = dayOf(decidedAt, language);
  const template = texts.record.includes("{id}") ? texts.record : `${texts.record}: {id} ({date})`;
  return template
    .split(/(\{id\}|\{date\})/)
    .map((part) =>
      part === "{id}" ? h("code", { dir: "ltr" }, consentId) : part === "{date}" ? day : part,
    );
}

/** Whether there is any to take back: where people may only object, a box left ticked gave none. */
const hasPermission = ({ decision }: State): boolean =>
  decision !== null &&
  Object.values(decision.choices).includes(true) &&
  (decision.mode === "opt_in" || decision.method === "accept_all");

/** What the signal did, or why it did not count. */
function signalNote(config: Config, state: State): HTMLElement[] {
  const { texts } = config;
  const isHonoured = honoursGpc(config, state);
  const text = isHonoured ? texts.gpc_notice : texts.gpc_overruled;
  if (isHonoured === null || !text) return [];
  const badge = isHonoured && texts.gpc_badge ? [h("strong", {}, texts.gpc_badge)] : [];
  return [h("div", { class: "gpc", role: "note" }, ...badge, h("p", {}, text))];
}

const requestLink = ({ texts, privacy_url }: Config): HTMLElement[] =>
  texts.your_data ? [h("a", { href: privacy_url, class: "link" }, texts.your_data)] : [];

function receipt({ texts, api }: Config, state: State): HTMLElement[] {
  const { consentId } = proven(state) ?? {};
  if (!consentId || !texts.receipt) return [];
  const href = `${api}/v1/receipts/${encodeURIComponent(consentId)}`;
  // A page to read and save from; the choice stays open beside it.
  return [h("a", { href, target: "_blank", rel: "noopener", class: "link" }, texts.receipt)];
}

/** Opens the dialog; it removes itself when it closes. */
export function openDialog(
  config: Config,
  state: State,
  root: ShadowRoot,
  actions: DialogActions,
  /** Cookies of denied purposes that could not be removed. */
  left: readonly string[] = [],
): void {
  if (root.querySelector("dialog[open]")) return;
  if (!styled.has(root)) root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet(css)];
  styled.add(root);
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
      act();
      dialog.close();
    };
  const switched = (): [string, boolean][] => [...boxes].map(([id, box]) => [id, box.checked]);
  const save = (): void => actions.save(Object.fromEntries(switched()));
  const reject = (): void =>
    actions.reject(Object.fromEntries(switched().filter(([, isOn]) => !isOn)));
  const close = button("close", "", () => dialog.close());
  close.setAttribute("aria-label", texts.close);

  const rows = config.purposes.map(row);
  const mayWithdraw = hasPermission(state);
  const withdraw = button("withdraw", texts.withdraw, leave(actions.withdraw));
  withdraw.className = "link";
  const proof = record(config, state);
  const sensitive = config.purposes.filter(
    ({ id, sensitive, required }) => sensitive && !required && granted(state.choices, id),
  );
  const limit = button(
    "limit",
    texts.limit_use ?? "",
    leave(() => actions.save(Object.fromEntries(sensitive.map(({ id }) => [id, false])))),
  );
  limit.className = "link";
  const mayLimit = config.mode !== "opt_in" && sensitive.length > 0 && texts.limit_use;

  const dialog = h(
    "dialog",
    { "aria-labelledby": "preferences", ...inLanguage(config) },
    h("div", { class: "top" }, h("h2", { id: "preferences" }, texts.dialog_title), close),
    h(
      "div",
      { class: "middle" },
      h("p", { class: "muted" }, texts.dialog_body),
      ...signalNote(config, state),
      ...(left.length && texts.not_cleared
        ? [
            h(
              "p",
              { class: "gpc", role: "note" },
              texts.not_cleared.replace("{names}", left.join(", ")),
            ),
          ]
        : []),
      h("ul", {}, ...rows),
      h(
        "div",
        { class: "more" },
        ...policyLink(config),
        ...(mayLimit ? [limit] : []),
        ...(mayWithdraw ? [withdraw] : []),
        ...receipt(config, state),
        ...requestLink(config),
      ),
      ...(proof.length ? [h("p", { class: "record muted" }, ...proof)] : []),
    ),
    h(
      "div",
      { class: "bottom" },
      button("reject", rejectLabel(config), leave(reject)),
      button("accept", texts.accept, leave(actions.accept)),
      button("save", texts.save, leave(save)),
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    actions.closed();
  });
  root.append(dialog);
  dialog.showModal();
}

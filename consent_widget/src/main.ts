/** Wires core and view together and hands the page one object: `window.quittance`. */
import { bodyOf, createOutbox, uuid } from "./api";
import type { Config, Method } from "./config";
import { dispatch, scriptNonce } from "./dom";
import { createGate } from "./gate";
import { createPlaceholder } from "./placeholder";
import { hasGpc } from "./signals";
import { type Action, all, begin, type Choices, granted, reduce, sameChoices } from "./state";
import { keyOf, load, save } from "./storage";
import { createView } from "./view";

export interface Change {
  readonly choices: Choices;
  readonly method: Method;
}

export interface Events {
  change: Change;
  recorded: { readonly consentId: string };
}

export interface Quittance {
  /** Resolves with the choices once the stored ones are read and applied. */
  readonly ready: Promise<Choices>;
  readonly consentId: string | null;
  choices(): Choices;
  has(purpose: string): boolean;
  open(): Promise<void>;
  accept(): void;
  reject(): void;
  set(changes: Choices): void;
  withdraw(): void;
  on<E extends keyof Events>(event: E, listener: (detail: Events[E]) => void): () => void;
}

// Only while the script runs for the first time does the page know which tag it is.
const nonce = scriptNonce();

/** A seam: the dialog may come from a file of its own without anything here changing. */
const loadDialog = async (): Promise<typeof import("./dialog")> => import("./dialog");

function running(): Quittance | null {
  // Own property: an element with the id `quittance` is a name on the window too.
  const own = Object.getOwnPropertyDescriptor(window, "quittance")?.value as Quittance | undefined;
  return typeof own?.withdraw === "function" ? own : null;
}

export function start(config: Config): Quittance {
  const earlier = running();
  if (earlier) return earlier;

  const now = Date.now();
  const stored = load(config.site_key);
  const gpc = hasGpc(config, navigator);
  let state = begin(config, { stored, gpc, now, newVisitorId: uuid() });
  const listeners = new Map<string, Set<(detail: never) => void>>();

  const has = (purpose: string): boolean => granted(state.choices, purpose);
  const allows = (purposes: readonly string[]): boolean =>
    purposes.length > 0 && purposes.every(has);

  function emit<E extends keyof Events>(event: E, detail: Events[E]): void {
    for (const listener of listeners.get(event) ?? []) {
      try {
        (listener as (detail: Events[E]) => void)(detail);
      } catch (error) {
        console.error(error); // one listener's mistake is not the next one's
      }
    }
  }

  function announce(method: Method): void {
    const detail: Change = { choices: state.choices, method };
    emit("change", detail);
    dispatch(new CustomEvent("quittance:change", { detail }));
  }

  function apply(action: Action): void {
    const before = state;
    state = reduce(config, state, action);
    view.render(state.prompt);
    if (state.decision && state.decision !== before.decision && action.type !== "adopt")
      save(config.site_key, state.decision, config.expiry_days);
    if (!state.decision || action.type === "recorded" || action.type === "dismiss") return;
    gate.sync();
    if (!before.decision || !sameChoices(before.choices, state.choices))
      announce(state.decision.method);
  }

  function post(): void {
    if (state.decision) outbox.send(bodyOf(config, state.decision, gpc));
  }

  function decide(method: Method, changes: Choices): void {
    apply({ type: "decide", method, changes, at: Date.now() });
    post();
  }

  const outbox = createOutbox(config, ({ consentId, decidedAt }) => {
    apply({ type: "recorded", consentId, decidedAt });
    if (state.decision?.consentId === consentId) emit("recorded", { consentId });
  });

  const accept = (): void => decide("accept_all", all(config, true));
  const reject = (): void => decide("reject_all", all(config, false));
  const withdraw = (): void => decide("withdrawal", all(config, false));
  const saveChoices = (changes: Choices): void => decide("custom", changes);
  const open = async (): Promise<void> => {
    const { openDialog } = await loadDialog();
    view.attach();
    openDialog(config, state, view.root, { accept, reject, withdraw, save: saveChoices });
  };

  const view = createView(config, {
    accept,
    reject,
    manage: () => void open(),
    close: () => apply({ type: "dismiss" }),
  });

  const gate = createGate({
    allows,
    nonce,
    placeholder: (frame, purposes) =>
      createPlaceholder(config, frame, purposes, {
        once: () => gate.open(frame),
        always: () => saveChoices(Object.fromEntries(purposes.map((id) => [id, true]))),
      }),
  });

  /** Another tab, or this page before it was frozen, may be behind the stored decision. */
  function catchUp(): void {
    const newest = load(config.site_key);
    if (newest && newest.decidedAt > (state.decision?.decidedAt ?? 0)) {
      const { decision } = begin(config, {
        stored: newest,
        gpc,
        now: Date.now(),
        newVisitorId: "",
      });
      if (decision === newest) apply({ type: "adopt", decision: newest });
    }
  }
  window.addEventListener("storage", ({ key }) => {
    if (key === keyOf(config.site_key)) catchUp();
  });
  window.addEventListener("pageshow", ({ persisted }) => {
    if (persisted) catchUp();
  });

  const quittance: Quittance = Object.freeze({
    ready: Promise.resolve(state.choices),
    get consentId() {
      return state.decision?.consentId ?? null;
    },
    choices: () => state.choices,
    has,
    open,
    accept,
    reject,
    set: saveChoices,
    withdraw,
    on(event: string, listener: (detail: never) => void) {
      const set = listeners.get(event) ?? new Set();
      listeners.set(event, set.add(listener));
      return () => void set.delete(listener);
    },
  });
  Object.defineProperty(window, "quittance", { value: quittance, configurable: true });

  gate.sync();
  view.render(state.prompt);
  view.attach();
  if (state.decision && state.decision !== stored) {
    save(config.site_key, state.decision, config.expiry_days);
    post();
    announce(state.decision.method);
  } else {
    // Heals whichever of cookie and mirror is missing, and sends what an earlier page could not.
    if (state.decision) save(config.site_key, state.decision, config.expiry_days);
    void outbox.flush();
  }
  return quittance;
}

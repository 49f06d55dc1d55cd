/** Wires core and view together and hands the page one object: `window.quittance`. */
import { bodyOf, createOutbox, type Recorded, uuid } from "./api";
import type { Config, Method, Mode, Tag } from "./config";
import { create, dispatch, ownTag } from "./dom";
import { createGate, type Gate } from "./gate";
import { createPlaceholder } from "./placeholder";
import { hasGpc } from "./signals";
import {
  type Action,
  all,
  begin,
  type Choices,
  type Decision,
  granted,
  optional,
  reduce,
  refused,
  type State,
  sameChoices,
  sold,
} from "./state";
import { isAfresh, keyOf, load, type Stores, save } from "./storage";
import { type Swept, sweep } from "./sweep";
import { createView } from "./view";
import { underZone } from "./zone";

export interface Change {
  readonly choices: Choices;
  readonly method: Method;
  /** A script of a purpose that was withdrawn has run: only a reload ends it. */
  readonly reloadAdvised: boolean;
  /** Made in another tab or on another device, whose page has told already. */
  readonly isElsewhere: boolean;
}

export interface Events {
  change: Change;
  recorded: { readonly consentId: string };
  swept: Swept;
  /** `visible` has changed, or whether that is a question or only a notice. */
  display: { readonly visible: boolean };
}

export interface Quittance {
  /** Resolves with the choices once the stored ones are read and applied. */
  readonly ready: Promise<Choices>;
  /** Resolves with the choices once somebody has answered, or at once where nobody is asked. */
  readonly settled: Promise<Choices>;
  readonly consentId: string | null;
  /** Whether a decision is stored: made here, by the signal, or elsewhere before. */
  readonly decided: boolean;
  /** Banner or dialog is in view; headless: the page's own banner is called for. */
  readonly visible: boolean;
  readonly mode: Mode;
  readonly regime: string;
  choices(): Choices;
  has(purpose: string): boolean;
  open(): Promise<void>;
  accept(): void;
  reject(): void;
  set(changes: Choices): void;
  withdraw(): void;
  /** What closing the banner does: an answer where people are only told, elsewhere none. */
  dismiss(): void;
  /** Removes what denied purposes left in the browser, now. */
  sweep(): Swept;
  /** Says who is signed in, by the host's own token, so that a choice holds on all their devices. */
  identify(token: string): Promise<boolean>;
  on<E extends keyof Events>(event: E, listener: (detail: Events[E]) => void): () => void;
}

export interface Earlier {
  readonly choices: Choices;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** A part that only some sites need, in a file of its own: see `modules` of the site. */
export interface Module {
  /** Choices that another consent manager kept, for somebody who has not chosen here. */
  earlier?(config: Config, now: number): Earlier | null;
  /** What it adds to `window.quittance`. */
  members?(quittance: Quittance, config: Config): object;
  /**
   * Runs once, before any gate opens. `isAsking`: a question or the dialog is in view, not only the
   * notice that the signal was honoured.
   */
  install?(quittance: Quittance, config: Config, gate: Gate, isAsking: () => boolean): void;
}

// Only while the script runs for the first time does the page know which tag it is.
const own = ownTag();
const nonce = own?.nonce ?? "";
/** The page has a banner of its own. */
const isHeadless = own?.hasAttribute("data-headless") ?? false;

type Dialog = typeof import("./dialog");

/** Kept once it has come; a failure is forgotten, so that the next try asks again. */
function loader(load: () => Promise<Dialog>): () => Promise<Dialog> {
  let coming: Promise<Dialog> | null = null;
  return () => {
    coming ??= load().catch((error: unknown) => {
      coming = null;
      throw error;
    });
    return coming;
  };
}

function inert({ src, purpose, load }: Tag): HTMLScriptElement {
  const script = create("script");
  script.type = "text/plain";
  script.nonce = nonce;
  script.setAttribute("data-purpose", purpose);
  script.setAttribute("data-src", src);
  if (load === "async") script.setAttribute("async", "");
  if (load === "module") script.setAttribute("data-type", "module");
  return script;
}

function running(): Quittance | null {
  // Own property: an element with the id `quittance` is a name on the window too.
  const own = Object.getOwnPropertyDescriptor(window, "quittance")?.value as Quittance | undefined;
  return typeof own?.withdraw === "function" ? own : null;
}

/** After the banner is on the screen. */
const later = (run: () => void): void => void setTimeout(run, 400);

export function start(
  served: Config,
  modules: readonly Module[] = [],
  importDialog: () => Promise<Dialog> = () => import(served.dialog),
  stores?: Stores,
): Quittance {
  const earlier = running();
  if (earlier) return earlier;

  const config = underZone(served);
  const now = Date.now();
  const stored = load(config.site_key, stores);
  const gpc = hasGpc(config, navigator);
  let state = adopted(beginWith(stored));
  const listeners = new Map<string, Set<(detail: never) => void>>();

  /** As a page does that finds this decision stored. */
  function beginWith(found: Decision | null): State {
    return begin(config, { stored: found, gpc, now: Date.now(), newVisitorId: uuid() });
  }

  /** What somebody said to another consent manager of this site counts, and is recorded as such. */
  function adopted(begun: State): State {
    if (stored || begun.decision || isAfresh(config.site_key)) return begun;
    for (const module of modules) {
      const found = module.earlier?.(config, now);
      if (!found) continue;
      const { choices: changes, at } = found;
      return reduce(config, begun, { type: "decide", method: "migrated", changes, at });
    }
    return begun;
  }

  const has = (purpose: string): boolean => granted(state.choices, purpose);
  const loadDialog = loader(importDialog);
  const trackers = config.trackers ?? [];
  let left: readonly string[] = [];
  /** 1: the notice that the signal was honoured; 2: a question, or the dialog. */
  let seen = 0;
  let isListening = false;
  let settle: (choices: Choices) => void = () => {};
  const settled = new Promise<Choices>((resolve) => {
    settle = resolve;
  });

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

  function announce(method: Method, before: Choices, isElsewhere = false): void {
    const reloadAdvised = Object.keys(before).some((id) => !has(id) && gate.hasRun(id));
    const detail: Change = { choices: state.choices, method, reloadAdvised, isElsewhere };
    emit("change", detail);
    dispatch(new CustomEvent("quittance:change", { detail }));
  }

  function apply(action: Action): void {
    const next = reduce(config, state, action);
    const isNews = next.decision !== state.decision;
    try {
      become(next, false);
    } finally {
      // Storage waits for another process: the page hears of the answer first.
      if (isNews && state.decision && (action.type === "decide" || !isBehind()))
        save(config, state.decision);
    }
  }

  const isBehind = (): boolean =>
    (load(config.site_key)?.decidedAt ?? 0) > (state.decision?.decidedAt ?? 0);

  /** All that follows from another state; saying the same again changes nothing. */
  function become(next: State, isElsewhere: boolean): void {
    const before = state;
    state = next;
    const isFirst = state.decision !== null && before.decision === null;
    if (isFirst || !sameChoices(before.choices, state.choices))
      announce(state.decision?.method ?? "withdrawal", before.choices, isElsewhere);
    gate.sync();
    view.render(state);
    if (state.prompt !== "ask") settle(state.choices);
    display();
    clear(before);
  }

  const isAsking = (): boolean =>
    state.prompt === "ask" || (!isHeadless && view.root.querySelector("dialog[open]") !== null);

  function display(): void {
    const before = seen;
    seen = isAsking() ? 2 : state.prompt ? 1 : 0;
    if (seen !== before) emit("display", { visible: seen > 0 });
  }

  /** Only after a decision: before one, what is there is not ours to judge. */
  function clear(before: State = state): Swept {
    if (!trackers.length || !(state.decision ?? before.decision)) return { cleared: [], left: [] };
    const swept = sweep(trackers, (id) => !has(id));
    left = swept.left;
    if (swept.cleared.length + left.length > 0) emit("swept", swept);
    return swept;
  }

  function post(): void {
    listen();
    if (state.decision) outbox.send(bodyOf(config, state.decision, gpc));
  }

  function decide(method: Method, changes: Choices): void {
    const before = state.decision;
    apply({ type: "decide", method, changes, at: Date.now() });
    if (state.decision !== before) post();
  }

  function note({ consentId, decidedAt }: Recorded): void {
    apply({ type: "recorded", consentId, decidedAt });
    if (state.decision?.consentId === consentId) emit("recorded", { consentId });
  }

  const outbox = createOutbox(config, (answer) => {
    catchUp(); // another tab may have stored since what this one is about to
    note(answer);
  });

  const accept = (): void => decide("accept_all", all(config, true));
  const deny = (method: Method) => (): void => decide(method, all(config, false));
  const reject = deny("reject_all");
  const withdraw = deny("withdrawal");
  const saveChoices = (changes: Choices): void => decide("custom", changes);
  /** As its label says: all, or what is sold; then with what is switched off beside it. */
  const refuse = (off: Choices): void => {
    const some = sold(config).map(({ id }) => [id, false]);
    if (some.length) saveChoices({ ...off, ...Object.fromEntries(some) });
    else reject();
  };
  const dismiss = (): void =>
    config.mode === "notice" && !state.decision
      ? decide("dismissed", {})
      : apply({ type: "dismiss" });
  const open = async (): Promise<void> => {
    view.attach();
    try {
      const { openDialog } = await loadDialog();
      const actions = { accept, reject: refuse, withdraw, save: saveChoices, closed: display };
      openDialog(config, state, view.root, actions, left);
    } catch (error) {
      console.error("quittance: the dialog could not be loaded", error);
      view.fail();
    }
    display();
  };

  const view = createView(
    config,
    {
      accept,
      reject: () => refuse({}),
      manage: () => void open(),
      intend: () => void loadDialog().catch(() => {}),
      close: dismiss,
    },
    isHeadless,
  );

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
    if (!newest) return;
    const { decision: mine } = state;
    const lead = newest.decidedAt - (mine?.decidedAt ?? 0);
    const denied = optional(config).filter((each) => has(each.id) && refused(config, newest, each));
    if (lead > 0 || (lead === 0 && denied.length > 0)) {
      const next = beginWith(newest);
      if (next.decision === newest) become(next, true);
      else if (!next.decision && denied.length > 0) {
        // It is no answer here, but denies all the same.
        const refusals = Object.fromEntries(denied.map(({ id }) => [id, false]));
        const choices = { ...mine?.choices, ...refusals };
        become(mine ? beginWith({ ...mine, choices }) : next, true);
      }
    } else if (newest.consentId && mine && !mine.consentId) {
      // By another tab.
      if (sameChoices(newest.choices, mine.choices)) note(newest as Recorded);
    }
  }

  /** As a page does that finds this stored, or nothing. */
  function goOn(found: Decision | null): void {
    become(beginWith(found), true);
    if (state.decision === found) return;
    if (state.decision) save(config, state.decision);
    post();
  }

  const identify = async (token: string): Promise<boolean> => {
    const { identify: link } = await loadDialog();
    await outbox.flush(); // so that the service knows what was chosen here
    const current = (): State => {
      catchUp();
      return state;
    };
    return link(config, { current, goOn, load, save }, token);
  };

  /** From the first choice on, or when there is time. */
  function listen(): void {
    if (isListening) return;
    isListening = true;
    window.addEventListener("storage", ({ key }) => {
      if (key === keyOf(config.site_key)) catchUp();
    });
    window.addEventListener("pageshow", ({ persisted }) => {
      if (persisted) catchUp();
    });
    // Scripts that still run after a withdrawal may have set their cookies again.
    window.addEventListener("pagehide", () => {
      clear();
      outbox.leave();
    });
    catchUp();
  }

  const quittance: Quittance = {
    ready: Promise.resolve(state.choices),
    settled,
    get decided() {
      return state.decision !== null;
    },
    get visible() {
      return seen > 0;
    },
    mode: config.mode,
    regime: config.regime,
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
    dismiss,
    sweep: () => clear(),
    identify,
    on(event: string, listener: (detail: never) => void) {
      const set = listeners.get(event) ?? new Set();
      listeners.set(event, set.add(listener));
      return () => void set.delete(listener);
    },
  };
  for (const module of modules) Object.assign(quittance, module.members?.(quittance, config));
  Object.freeze(quittance);
  Object.defineProperty(window, "quittance", { value: quittance, configurable: true });

  for (const module of modules) module.install?.(quittance, config, gate, isAsking);
  for (const tag of config.tags ?? []) document.head.append(inert(tag));
  gate.sync();
  view.render(state);
  view.attach();
  if (state.prompt !== "ask") settle(state.choices);
  display();
  clear();
  // Also heals whichever of cookie and mirror is missing.
  if (state.decision) save(config, state.decision);
  if (state.decision && state.decision !== stored) {
    post();
    announce(state.decision.method, {});
  } else {
    later(() => void outbox.flush()); // what an earlier page could not send
  }
  later(listen);
  window.addEventListener(
    "click",
    (event) => {
      if (!(event.target as Element).closest?.("[data-quittance-open]")) return;
      event.preventDefault();
      void open();
    },
    true,
  );
  return quittance;
}

/** What the visitor decided and what follows from it: pure, without clock, storage or page. */
import type { Config, Method, Mode, Purpose } from "./config";

export type Choices = Readonly<Record<string, boolean>>;

export interface Decision {
  /** The mode it was made under: silence under opt-out is no consent under opt-in. */
  readonly mode: Mode;
  readonly notice: string;
  readonly visitorId: string;
  /** Milliseconds since the epoch; also what ties the service's answer to this decision. */
  readonly decidedAt: number;
  readonly method: Method;
  /** Every purpose that is not required. */
  readonly choices: Choices;
  readonly consentId: string | null;
}

export interface State {
  readonly visitorId: string;
  readonly gpc: boolean;
  readonly decision: Decision | null;
  /** What holds now, required purposes included. */
  readonly choices: Choices;
  /** `ask`: the banner; `gpc`: only the notice that the signal was honoured. */
  readonly prompt: "ask" | "gpc" | null;
}

export type Action =
  | { type: "decide"; changes: Choices; method: Method; at: number }
  | { type: "recorded"; decidedAt: number; consentId: string }
  | { type: "adopt"; decision: Decision }
  | { type: "dismiss" };

const DAY = 86_400_000;

const optional = (config: Config): readonly Purpose[] =>
  config.purposes.filter((purpose) => !purpose.required);

/** `fromEntries` defines own properties, so even a purpose called `__proto__` is only a name. */
const build = (purposes: readonly Purpose[], answer: (purpose: Purpose) => boolean): Choices =>
  Object.freeze(Object.fromEntries(purposes.map((each) => [each.id, answer(each)])));

export const granted = (choices: Choices, id: string): boolean =>
  Object.hasOwn(choices, id) && choices[id] === true;

const refused = (choices: Choices | undefined, id: string): boolean =>
  choices !== undefined && Object.hasOwn(choices, id) && choices[id] === false;

const effective = (config: Config, choices: Choices): Choices =>
  build(config.purposes, (purpose) => purpose.required || granted(choices, purpose.id));

/** One answer for all optional purposes. */
export const all = (config: Config, value: boolean): Choices =>
  build(optional(config), () => value);

export const sameChoices = (a: Choices, b: Choices): boolean =>
  Object.keys(a).length === Object.keys(b).length &&
  Object.keys(a).every((id) => Object.hasOwn(b, id) && a[id] === b[id]);

/** Does this stored decision answer what the page asks now? */
export function answers(config: Config, decision: Decision, now: number): boolean {
  const age = now - decision.decidedAt;
  return (
    decision.notice === String(config.notice_version) &&
    age < config.expiry_days * DAY &&
    age > -DAY && // a clock that was set back must not make a consent outlive its term
    (config.mode === "opt_out" ||
      decision.mode === "opt_in" ||
      !Object.values(decision.choices).includes(true))
  );
}

/** A person's own act on this site: the only grants that stand against the GPC signal. */
const EXPLICIT: readonly Method[] = ["accept_all", "custom"];

/** Does the signal deny this purpose to a decision made this way? The service judges alike. */
const signalDenies = (
  { honours_gpc }: Config,
  gpc: boolean,
  method: Method,
  { denied_by_gpc }: Purpose,
): boolean => gpc && honours_gpc && denied_by_gpc && !EXPLICIT.includes(method);

/** What holds while nobody has answered; an outdated refusal still refuses, an outdated grant grants nothing. */
function unanswered(config: Config, earlier: Decision | null): Choices {
  return build(
    optional(config),
    ({ id, default: byDefault }) =>
      config.mode === "opt_out" && byDefault && !refused(earlier?.choices, id),
  );
}

/** The signal is there and nothing it forbids is granted; an explicit grant outweighs it. */
export const honoursGpc = (config: Config, { gpc, choices }: State): boolean => {
  const denied = optional(config).filter((each) => each.denied_by_gpc);
  return (
    gpc && config.honours_gpc && denied.length > 0 && !denied.some(({ id }) => granted(choices, id))
  );
};

export interface Start {
  readonly stored: Decision | null;
  readonly gpc: boolean;
  readonly now: number;
  readonly newVisitorId: string;
}

export function begin(config: Config, { stored, gpc, now, newVisitorId }: Start): State {
  const visitorId = stored?.visitorId ?? newVisitorId;
  if (stored && answers(config, stored, now)) {
    const choices = effective(config, stored.choices);
    const answered: State = { visitorId, gpc, decision: stored, choices, prompt: null };
    const isOverruled = optional(config).some(
      (each) => granted(choices, each.id) && signalDenies(config, gpc, stored.method, each),
    );
    return isOverruled ? heed(config, answered, now) : answered;
  }
  const silent = unanswered(config, stored);
  const open: State = {
    visitorId,
    gpc,
    decision: null,
    choices: effective(config, silent),
    prompt: config.shown ? "ask" : null,
  };
  if (config.mode === "opt_in" || !gpc || !config.honours_gpc) return open;
  // Who sends the signal has already said no and is not asked, also where it denies nothing.
  return optional(config).some((each) => each.denied_by_gpc)
    ? heed(config, open, now)
    : { ...open, prompt: null };
}

const heed = (config: Config, state: State, now: number): State => ({
  ...reduce(config, state, { type: "decide", changes: {}, method: "gpc", at: now }),
  prompt: "gpc",
});

export function reduce(config: Config, state: State, action: Action): State {
  switch (action.type) {
    case "decide": {
      const choices = build(
        optional(config),
        (each) =>
          !signalDenies(config, state.gpc, action.method, each) &&
          granted(Object.hasOwn(action.changes, each.id) ? action.changes : state.choices, each.id),
      );
      const decision: Decision = {
        mode: config.mode,
        notice: String(config.notice_version),
        visitorId: state.visitorId,
        decidedAt: after(state.decision?.decidedAt, action.at),
        method: action.method,
        choices,
        consentId: null,
      };
      return { ...state, decision, choices: effective(config, choices), prompt: null };
    }
    case "recorded":
      return state.decision?.decidedAt === action.decidedAt
        ? { ...state, decision: { ...state.decision, consentId: action.consentId } }
        : state;
    case "adopt":
      return {
        ...state,
        visitorId: action.decision.visitorId,
        decision: action.decision,
        choices: effective(config, action.decision.choices),
        prompt: null,
      };
    case "dismiss":
      return { ...state, prompt: null };
  }
}

/** The service takes the greatest `decided_at` as current, so a second click must be later than the first. */
function after(previous: number | undefined, now: number): number {
  return previous !== undefined && previous >= now && previous - now < DAY ? previous + 1 : now;
}

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

/** What holds while nobody has answered; an outdated refusal still refuses, an outdated grant grants nothing. */
function unanswered(config: Config, earlier: Decision | null): Choices {
  return build(
    optional(config),
    ({ id, default: byDefault }) =>
      config.mode === "opt_out" && byDefault && !refused(earlier?.choices, id),
  );
}

const isSale = (purpose: Purpose): boolean => purpose.id === "advertising" || purpose.sale === true;

/** The signal is there and nothing it forbids is granted; an explicit grant outweighs it. */
export const honoursGpc = (config: Config, { gpc, choices }: State): boolean =>
  gpc && !optional(config).some((purpose) => isSale(purpose) && granted(choices, purpose.id));

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
    return { visitorId, gpc, decision: stored, choices, prompt: null };
  }
  const silent = unanswered(config, stored);
  const open: State = {
    visitorId,
    gpc,
    decision: null,
    choices: effective(config, silent),
    prompt: config.shown ? "ask" : null,
  };
  const denied = optional(config).filter((purpose) => purpose.default && isSale(purpose));
  if (config.mode === "opt_in" || !gpc || denied.length === 0) return open;
  const changes = build(denied, () => false);
  return {
    ...reduce(config, open, { type: "decide", changes, method: "gpc", at: now }),
    prompt: "gpc",
  };
}

export function reduce(config: Config, state: State, action: Action): State {
  switch (action.type) {
    case "decide": {
      const choices = build(optional(config), ({ id }) =>
        Object.hasOwn(action.changes, id)
          ? action.changes[id] === true
          : granted(state.choices, id),
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

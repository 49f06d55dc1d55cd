/** What the visitor decided and what follows from it: pure, without clock, storage or page. */
import type { Config, Method, Mode, Purpose } from "./config";

export type Choices = Readonly<Record<string, boolean>>;

export interface Decision {
  /** The mode it was made under: silence under opt-out is no consent under opt-in. */
  readonly mode: Mode;
  readonly notice: string;
  /** `Config.material` of then; empty in what was stored before it was kept. */
  readonly material: string;
  /** The signal was on: only then does a grant stand against it. */
  readonly gpc: boolean;
  readonly visitorId: string;
  /** Milliseconds since the epoch; also what ties the service's answer to this decision. */
  readonly decidedAt: number;
  readonly method: Method;
  /** Every purpose that is not required; one that is missing was left be, where it runs unasked. */
  readonly choices: Choices;
  readonly consentId: string | null;
}

export interface State {
  readonly visitorId: string;
  readonly gpc: boolean;
  readonly decision: Decision | null;
  /** What was stored before; where it answers no more, it is proof all the same. */
  readonly earlier: Decision | null;
  /** What holds now, required purposes included. */
  readonly choices: Choices;
  /** `ask`: the banner; `gpc`: only the notice that the signal was honoured. */
  readonly prompt: "ask" | "gpc" | null;
  /** Why somebody who chose before is asked again. */
  readonly reason: Reason | null;
}

/** `expired`: the day of the choice that ran out; `changed`: what is new, as far as it is known. */
export type Reason =
  | { readonly kind: "expired"; readonly decidedAt: number }
  | { readonly kind: "changed"; readonly names: readonly string[] };

export type Action =
  | { type: "decide"; changes: Choices; method: Method; at: number }
  | { type: "recorded"; decidedAt: number; consentId: string }
  | { type: "dismiss" };

export const DAY = 86_400_000;

export const optional = (config: Config): readonly Purpose[] =>
  config.purposes.filter((purpose) => !purpose.required);

/** `fromEntries` defines own properties, so even a purpose called `__proto__` is only a name. */
const build = (purposes: readonly Purpose[], answer: (purpose: Purpose) => boolean): Choices =>
  Object.freeze(Object.fromEntries(purposes.map((each) => [each.id, answer(each)])));

export const granted = (choices: Choices, id: string): boolean =>
  Object.hasOwn(choices, id) && choices[id] === true;

/**
 * By name; or it is sold and came later, and what was sold then was refused: an opt-out covers the
 * next of its kind. What was refused and is gone now may have been sold.
 */
export function refused(
  config: Config,
  earlier: Decision | null,
  { id, denied_by_gpc }: Purpose,
): boolean {
  if (!earlier) return false;
  const { choices, notice } = earlier;
  if (Object.hasOwn(choices, id)) return choices[id] === false;
  if (!denied_by_gpc || notice === String(config.notice_version)) return false;
  const unsold = config.purposes.filter((each) => !each.denied_by_gpc).map((each) => each.id);
  return (
    Object.keys(choices).some((name) => !choices[name] && !unsold.includes(name)) &&
    !config.purposes.some((each) => each.denied_by_gpc && granted(choices, each.id))
  );
}

const isUnasked = ({ mode }: Config, { default: byDefault }: Purpose): boolean =>
  mode !== "opt_in" && byDefault;

const effective = (config: Config, answer: Decision): Choices =>
  build(
    config.purposes,
    (each) =>
      each.required ||
      (Object.hasOwn(answer.choices, each.id)
        ? answer.choices[each.id] === true
        : isUnasked(config, each) && !refused(config, answer, each)),
  );

/** One answer for all optional purposes. */
export const all = (config: Config, value: boolean): Choices =>
  build(optional(config), () => value);

/** What an opt-out law lets people forbid by its name: "do not sell or share". */
export const sold = (config: Config): readonly Purpose[] =>
  optional(config).filter((each) => config.mode === "opt_out" && each.denied_by_gpc);

/** Of one configuration, whose purposes keep their order. */
export const sameChoices = (a: Choices, b: Choices): boolean =>
  JSON.stringify(a) === JSON.stringify(b);

/** Was this decided about what the notice still asks for? */
const isSameQuestion = (config: Config, { material, notice }: Decision): boolean =>
  material ? material === config.material : notice === String(config.notice_version);

export function isInTime(
  days: number,
  { decidedAt }: Pick<Decision, "decidedAt">,
  now: number,
): boolean {
  const age = now - decidedAt;
  // A clock that was set back must not make a consent outlive its term.
  return age < days * DAY && age > -DAY;
}

/** Does this stored decision answer what the page asks now? */
export function answers(config: Config, decision: Decision, now: number): boolean {
  return (
    isSameQuestion(config, decision) &&
    isInTime(config.expiry_days, decision, now) &&
    (config.mode !== "opt_in" ||
      (optional(config).every(({ id }) => Object.hasOwn(decision.choices, id)) &&
        (decision.mode === "opt_in" || !Object.values(decision.choices).includes(true))))
  );
}

function reasonOf(config: Config, earlier: Decision | null, now: number): Reason | null {
  if (!earlier || earlier.method === "gpc") return null;
  if (earlier.notice !== String(config.notice_version) && !isSameQuestion(config, earlier)) {
    const unknown = optional(config).filter(({ id }) => !Object.hasOwn(earlier.choices, id));
    const { news = {} } = config;
    const told = Object.hasOwn(news, earlier.notice) && news[earlier.notice];
    const names = told || unknown.map(({ name }) => name);
    return { kind: "changed", names };
  }
  return isInTime(config.expiry_days, earlier, now)
    ? null
    : { kind: "expired", decidedAt: earlier.decidedAt };
}

/** A person's own act on this site: what it names is all that stands against the GPC signal. */
const EXPLICIT: readonly Method[] = ["accept_all", "custom"];

/** Was it made against the signal, which was on? Then the grants in it stand. */
export const outweighsGpc = ({ gpc, method }: Decision): boolean =>
  gpc && EXPLICIT.includes(method);

/** A person's own, here or elsewhere; what a signal, a closed notice or another tool made is none. */
export const isChoice = (decision: Decision | null): boolean =>
  decision !== null && !/^(gpc|dis|mig)/.test(decision.method);

/** Does the signal deny this purpose, unless a person said otherwise? The service judges alike. */
export const signalDenies = (
  { honours_gpc }: Config,
  gpc: boolean,
  { denied_by_gpc }: Purpose,
): boolean => gpc && honours_gpc === true && denied_by_gpc;

/** What holds while nobody has answered; an outdated refusal still refuses, an outdated grant grants nothing. */
const unanswered = (config: Config, earlier: Decision | null): Choices =>
  build(
    config.purposes,
    (each) => each.required || (isUnasked(config, each) && !refused(config, earlier, each)),
  );

/** Some laws have nobody asked again so soon after a refusal, also when the notice has changed. */
const isLeftAlone = (
  { reask_after_days }: Config,
  earlier: Decision | null,
  now: number,
): boolean | 0 | null | undefined =>
  reask_after_days &&
  earlier &&
  Object.values(earlier.choices).includes(false) &&
  isInTime(reask_after_days, earlier, now);

/** Null where no signal counts; else whether nothing that it forbids is granted. */
export function honoursGpc(config: Config, { gpc, choices }: State): boolean | null {
  const denied = optional(config).filter((each) => signalDenies(config, gpc, each));
  return denied.length > 0 ? !denied.some(({ id }) => granted(choices, id)) : null;
}

export interface Start {
  readonly stored: Decision | null;
  readonly gpc: boolean;
  readonly now: number;
  readonly newVisitorId: string;
}

export function begin(config: Config, { stored, gpc, now, newVisitorId }: Start): State {
  const open: State = {
    visitorId: stored?.visitorId ?? newVisitorId,
    gpc,
    decision: null,
    earlier: stored,
    choices: unanswered(config, stored),
    prompt: config.shown && !isLeftAlone(config, stored, now) ? "ask" : null,
    reason: reasonOf(config, stored, now),
  };
  if (stored && answers(config, stored, now)) {
    const answered = decided(config, open, stored);
    const isOverruled =
      !outweighsGpc(stored) &&
      optional(config).some(
        (each) => granted(answered.choices, each.id) && signalDenies(config, gpc, each),
      );
    return isOverruled ? heed(config, answered, now) : answered;
  }
  if (config.mode === "opt_in" || !gpc || !config.honours_gpc) return open;
  // Who sends the signal has already said no and is not asked, also where it denies nothing.
  return optional(config).some((each) => each.denied_by_gpc)
    ? heed(config, open, now)
    : { ...open, prompt: null };
}

const decided = (config: Config, state: State, decision: Decision): State => ({
  ...state,
  visitorId: decision.visitorId,
  decision,
  choices: effective(config, decision),
  prompt: null,
  reason: null,
});

const heed = (config: Config, state: State, now: number): State => ({
  ...reduce(config, state, { type: "decide", changes: {}, method: "gpc", at: now }),
  prompt: "gpc",
});

export function reduce(config: Config, state: State, action: Action): State {
  switch (action.type) {
    case "decide": {
      const isExplicit = EXPLICIT.includes(action.method);
      const names = (choices: Choices | undefined, { id }: Purpose): boolean =>
        choices !== undefined && Object.hasOwn(choices, id);
      const hasChosen = isChoice(state.decision);
      // What runs unasked was not chosen by who decides on something else.
      const isLeftBe = (each: Purpose): boolean =>
        action.method === "custom" &&
        isUnasked(config, each) &&
        granted(state.choices, each.id) &&
        !signalDenies(config, state.gpc, each) &&
        !names(action.changes, each) &&
        !(hasChosen && names(state.decision?.choices, each));
      const answered = optional(config).filter((each) => !isLeftBe(each));
      const choices = build(answered, (each) => {
        const isNamed = names(action.changes, each);
        return (
          ((isExplicit && isNamed) || !signalDenies(config, state.gpc, each)) &&
          granted(isNamed ? action.changes : state.choices, each.id)
        );
      });
      if (Object.keys(choices).length === 0) return { ...state, prompt: null, reason: null };
      return decided(config, state, {
        mode: config.mode,
        notice: String(config.notice_version),
        material: config.material,
        gpc: state.gpc,
        visitorId: state.visitorId,
        decidedAt: after(state.decision?.decidedAt, action.at),
        method: action.method,
        choices,
        consentId: null,
      });
    }
    case "recorded":
      return state.decision?.decidedAt === action.decidedAt && !state.decision.consentId
        ? { ...state, decision: { ...state.decision, consentId: action.consentId } }
        : state;
    case "dismiss":
      return { ...state, prompt: null };
  }
}

/** The service takes the greatest `decided_at` as current, so a second click must be later than the first. */
function after(previous: number | undefined, now: number): number {
  return previous !== undefined && previous >= now && previous - now < DAY ? previous + 1 : now;
}

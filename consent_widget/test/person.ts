/**
 * The service as one person's browsers know it: it keeps the rule "Which choice holds" of
 * docs/how-to/link-visitors.md, purpose by purpose. A visitor's region names the mode.
 */
import type { ConsentBody } from "../src/api";
import type { Mode } from "../src/config";

export const DAY = 86_400_000;
export const TERM = 180;
export const IDS = ["functional", "analytics", "advertising"];
/** What the signal denies, where its mode honours it. */
export const SOLD = "advertising";
export const honoursGpc = (mode: Mode): boolean => mode !== "notice";

type Choices = Readonly<Record<string, boolean>>;

interface Kept extends ConsentBody {
  readonly id: string;
  readonly at: number;
}

const modeOf = ({ region }: Kept): Mode => region as Mode;
const isSignal = ({ method }: Kept): boolean => method === "gpc";
const isChoice = ({ method }: Kept): boolean => method !== "gpc" && method !== "dismissed";
const refusals = (choices: Choices): Choices =>
  Object.fromEntries(Object.entries(choices).filter(([, value]) => !value));
const weight = ({ choices }: Kept): number => Object.keys(refusals(choices)).length;
const newest = (records: readonly Kept[]): Kept[] =>
  records.filter(({ at }) => records.every((each) => each.at <= at));
const told = ({ id, at }: Kept) => ({ consent_id: id, decided_at: new Date(at).toISOString() });

export class Person {
  notice = 1;
  readonly records: Kept[] = [];
  readonly linked = new Set<string>();

  record(said: ConsentBody): object {
    let kept = this.records.find(({ event_id }) => event_id === said.event_id);
    if (!kept) {
      const at = Math.min(Date.parse(said.decided_at), Date.now() + 5 * 60_000);
      kept = { ...said, id: `con_${this.records.length + 1}`, at };
      this.records.push(kept);
    }
    return { consent_id: kept.id };
  }

  link(visitorId: string): object {
    this.linked.add(visitorId);
    const signal = this.signal();
    return {
      state: this.#stateOf(visitorId),
      ...(signal && { signal: { ...told(signal), denied: [SOLD] } }),
    };
  }

  /** What holds of a purpose by the newest choice about it; a grant that has lapsed says nothing. */
  lastWord(id: string): { readonly at: number; readonly value: boolean | undefined } {
    const last = newest(this.#ofAll(isChoice).filter(({ choices }) => id in choices));
    const isDenied = last.some(({ choices }) => !choices[id]);
    const isGranted = last.some((each) => !this.#hasLapsed(each));
    return { at: last[0]?.at ?? 0, value: isDenied ? false : isGranted || undefined };
  }

  /** The newest of which nobody has chosen since. */
  signal(): Kept | undefined {
    const { at } = this.lastWord(SOLD);
    return newest(this.#ofAll(isSignal).filter((each) => each.at >= at))[0];
  }

  /** Whether a record says yes to it, in answer to today's question. */
  hasConsented(id: string, mode: Mode): boolean {
    return this.records.some(
      (each) => modeOf(each) === mode && each.choices[id] && !this.#hasLapsed(each),
    );
  }

  /** Whether the last word in this browser grants what the signal denies. */
  outweighsSignal(visitors: ReadonlySet<string>): boolean {
    const here = this.records.filter(
      ({ visitor_id, method, choices }) =>
        visitors.has(visitor_id) && method !== "dismissed" && SOLD in choices,
    );
    return newest(here).some(({ choices }) => choices[SOLD]);
  }

  #hasLapsed({ at, notice_version }: Kept): boolean {
    return notice_version !== String(this.notice) || at + TERM * DAY <= Date.now();
  }

  #ofAll(isKind: (record: Kept) => boolean): Kept[] {
    return this.records.filter((each) => this.linked.has(each.visitor_id) && isKind(each));
  }

  #stateOf(visitorId: string): object | null {
    const own = newest(this.records.filter(({ visitor_id }) => visitor_id === visitorId))[0];
    const chosen = newest(this.#ofAll(isChoice)).sort((a, b) => weight(b) - weight(a))[0];
    const record = chosen ?? own;
    if (!record) return null;
    const isSignalling = own?.gpc && honoursGpc(modeOf(own)) && !own.choices[SOLD];
    const choices: Record<string, boolean> = {};
    for (const id of IDS) {
      const value = chosen ? this.lastWord(id).value : record.choices[id];
      if (value !== undefined) choices[id] = value && !(isSignalling && id === SOLD);
    }
    const hasLapsed = this.#hasLapsed(record);
    const isRefusal = modeOf(record) === "opt_out" && Object.values(choices).includes(false);
    const isLeftAlone = isRefusal && Date.now() < record.at + 365 * DAY;
    const isOwn = record === own && IDS.every((id) => choices[id] === record.choices[id]);
    return {
      ...told(record),
      choices: hasLapsed ? refusals(choices) : choices,
      mode: modeOf(record),
      notice_version: record.notice_version,
      source: isOwn ? "this_device" : "other_device",
      stale: hasLapsed && !isLeftAlone,
    };
  }
}

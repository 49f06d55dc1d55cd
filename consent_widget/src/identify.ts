/**
 * Tells the service who is signed in, by the host's own token, and takes over what that person chose
 * on another device. Travels in the dialog's file: only signed-in visitors need it.
 */
import { POST } from "./api";
import type { Config, Method, Mode } from "./config";
import {
  type Choices,
  DAY,
  type Decision,
  granted,
  isChoice,
  isInTime,
  outweighsGpc,
  type State,
  signalDenies,
} from "./state";
import { forget, type load, type save } from "./storage";

/** What this needs of the page. */
export interface Visitor {
  /** Caught up with other tabs. */
  current(): State;
  /** Goes on as a page that finds this decision stored, or nothing. */
  goOn(found: Decision | null): void;
  /** Not imported: the widget's file has them. */
  readonly load: typeof load;
  readonly save: typeof save;
}

interface Answer {
  readonly state: null | {
    readonly choices: Choices;
    readonly mode: Mode;
    readonly decided_at: string;
    readonly notice_version: string;
    readonly consent_id: string;
    readonly source: "this_device" | "other_device";
    readonly stale: boolean;
  };
  readonly signal?: Signal;
}

/** What the opt-out signal in a browser of the person denies, until they choose about it. */
interface Signal {
  readonly denied: readonly string[];
  readonly decided_at: string;
  readonly consent_id: string;
}

const asked = ({ purposes }: Config) => purposes.filter(({ required }) => !required);

/** What was chosen elsewhere, as a decision of this browser; null: what is here stands. */
function taken(
  config: Config,
  page: State,
  stored: Decision | null,
  said: Answer["state"],
): Decision | null {
  if (said?.source !== "other_device") return null;
  const { decision: mine, gpc, visitorId } = page;
  const decidedAt = Date.parse(said.decided_at);
  const isOutdated = said.stale || !isInTime(config.expiry_days, { decidedAt }, Date.now());
  // A choice that the service does not know yet stands if it is the later one; what is no choice,
  // such as a notice that was closed here, stands against what is outdated only.
  const isAhead = stored && !stored.consentId && stored.decidedAt > decidedAt;
  if (isChoice(stored) ? isAhead : mine && isOutdated) return null;
  const choices = { ...said.choices };
  let method: Method = "api";
  for (const each of asked(config)) {
    if (!granted(choices, each.id) || !signalDenies(config, gpc, each)) continue;
    // Against the signal of this browser only what was granted in this browser stands.
    if (mine && outweighsGpc(mine) && granted(mine.choices, each.id)) method = mine.method;
    else choices[each.id] = false;
  }
  return {
    mode: said.mode,
    notice: said.notice_version,
    // Outdated: its refusals keep refusing, and the banner asks.
    material: said.stale ? "-" : config.material,
    gpc: method !== "api",
    visitorId,
    decidedAt,
    method,
    choices,
    consentId: said.consent_id,
  };
}

/** Where nobody has chosen: it denies, and answers nothing. */
const silence = (config: Config, visitorId: string, signal: Signal): Decision => ({
  mode: config.mode,
  notice: String(config.notice_version),
  material: "-",
  gpc: false,
  visitorId,
  decidedAt: Date.parse(signal.decided_at),
  method: "gpc",
  choices: {},
  consentId: signal.consent_id,
});

/**
 * What this browser is to store, by the service's answer; null: what it has. What is denied elsewhere
 * is denied in the decision that is here, which keeps its age, so that no grant outlives its term, and
 * its id.
 */
export function joined(
  config: Config,
  page: State,
  stored: Decision | null,
  { state, signal }: Answer,
): Decision | null {
  const heard = taken(config, page, stored, state);
  const isChosen = isChoice(page.decision);
  // Until the service knows of what was chosen here, it cannot say what came after it.
  const refused = heard || !isChosen || page.decision?.consentId ? [...(signal?.denied ?? [])] : [];
  if (!heard && state && !isChosen)
    refused.push(...Object.keys(state.choices).filter((id) => !granted(state.choices, id)));
  const denied = asked(config).filter(({ id }) => refused.includes(id));
  const isOn = denied.some(({ id }) => granted(page.choices, id));
  const base = heard ?? stored ?? (signal && isOn ? silence(config, page.visitorId, signal) : null);
  if (!base) return null;
  const choices = { ...base.choices };
  for (const { id } of denied) choices[id] = false;
  // By this browser's clock the signal may be yet to come: what is chosen next comes after it.
  const at = signal && denied.length > 0 ? Date.parse(signal.decided_at) : 0;
  const decidedAt =
    at > Date.now() && at - base.decidedAt < DAY ? Math.max(at, base.decidedAt) : base.decidedAt;
  const made = { ...base, choices, decidedAt };
  return stored && isSame(made, stored) ? null : made;
}

const isSame = (one: Decision, other: Decision): boolean =>
  one.decidedAt === other.decidedAt &&
  one.material === other.material &&
  Object.keys({ ...one.choices, ...other.choices }).every(
    (id) => one.choices[id] === other.choices[id],
  );

const link = (config: Config, token: string, visitorId: string): Promise<Response> =>
  fetch(`${config.api}/v1/visitors/link`, {
    ...POST,
    credentials: "omit",
    headers: { ...POST.headers, Authorization: `Bearer ${token}` },
    body: JSON.stringify({ site_key: config.site_key, visitor_id: visitorId }),
  });

/** True once the visitor is linked; rejects with the status where the service refused. */
export async function identify(config: Config, visitor: Visitor, token: string): Promise<boolean> {
  let before = visitor.current();
  let response = await link(config, token, before.visitorId);
  if (response.status === 409) {
    // Somebody else signed in with this browser before: what they chose is not this person's. The
    // token was not used up.
    forget(config);
    visitor.goOn(null);
    before = visitor.current();
    response = await link(config, token, before.visitorId);
  }
  if (!response.ok) throw new Error(`quittance: not linked, status ${response.status}`);
  const answer = (await response.json()) as Answer;
  const page = visitor.current();
  // Chosen anew or recorded since it was asked: the next page asks again.
  if (page.decision !== before.decision) return true;
  const decision = joined(config, page, page.decision ?? visitor.load(config.site_key), answer);
  if (decision) {
    forget(config); // it may be older than what it takes the place of
    visitor.save(config, decision);
    visitor.goOn(decision);
  }
  return true;
}

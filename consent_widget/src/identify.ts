/**
 * Tells the service who is signed in, by the host's own token, and takes over what that person chose
 * on another device. Travels in the dialog's file: only signed-in visitors need it.
 */
import { POST } from "./api";
import type { Config, Method, Mode } from "./config";
import { type Choices, type Decision, granted, type State } from "./state";

/** What this needs of the page. */
export interface Visitor {
  state(): State;
  /** Stores a decision made elsewhere; it holds here unless this page has a newer one. */
  keep(decision: Decision): void;
  /** Forgets the decision and the id of whoever was here before. */
  renew(): void;
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
  /** What the opt-out signal of another browser denies, until the person chooses otherwise. */
  readonly signal?: {
    readonly denied: readonly string[];
    readonly decided_at: string;
    readonly consent_id: string;
  };
}

const MADE_HERE: readonly Method[] = ["accept_all", "reject_all", "custom", "withdrawal"];

/** Was it chosen in this browser, later than that? The service may not have heard of it yet. */
const isLater = (mine: Decision | null, moment = ""): boolean =>
  mine !== null && MADE_HERE.includes(mine.method) && mine.decidedAt > Date.parse(moment);

/**
 * The decision of this page with what the answer adds to it; null: nothing. What is added is later
 * than what it was added to, so that no tab and no older cookie brings that back; hardly later, so
 * that no grant outlives its term.
 */
export function joined(config: Config, page: State, { state, signal }: Answer): Decision | null {
  const { decision: mine, visitorId } = page;
  const isHeard =
    state?.source === "other_device" &&
    (mine?.consentId === state.consent_id || !isLater(mine, state.decided_at));
  const said = isHeard ? state.choices : {};
  const holding = { ...page.choices, ...said };
  const denied = (signal?.denied ?? []).filter(
    (id) =>
      granted(holding, id) &&
      (isHeard || !isLater(mine, signal?.decided_at) || !Object.hasOwn(mine?.choices ?? {}, id)),
  );
  const source = isHeard ? state : denied.length > 0 ? signal : undefined;
  if (!source) return null;
  const choices = {
    ...mine?.choices,
    ...said,
    ...Object.fromEntries(denied.map((id) => [id, false])),
  };
  const isNews = Object.keys(choices).some((id) => choices[id] !== mine?.choices[id]);
  const before = mine?.decidedAt ?? 0;
  // Of what is outdated only the refusals count, and they ask nobody who has answered here.
  if (mine && (!isHeard || state.stale))
    return isNews ? { ...mine, choices, decidedAt: before + 1 } : null;
  const at = Date.parse(source.decided_at);
  if (!isNews && at <= before) return null;
  return {
    mode: isHeard ? state.mode : config.mode,
    notice: isHeard ? state.notice_version : String(config.notice_version),
    material: isHeard && state.stale ? "-" : config.material,
    // What was said here against the signal of this browser keeps its weight.
    gpc: mine?.gpc ?? false,
    method: mine?.gpc ? mine.method : isHeard ? "api" : "gpc",
    visitorId,
    decidedAt: isNews ? Math.max(at, before + 1) : at,
    choices,
    consentId: source.consent_id,
  };
}

const link = (config: Config, token: string, visitorId: string): Promise<Response> =>
  fetch(`${config.api}/v1/visitors/link`, {
    ...POST,
    credentials: "omit",
    headers: { ...POST.headers, Authorization: `Bearer ${token}` },
    body: JSON.stringify({ site_key: config.site_key, visitor_id: visitorId }),
  });

/** True once the visitor is linked; rejects with the status where the service refused. */
export async function identify(config: Config, visitor: Visitor, token: string): Promise<boolean> {
  let response = await link(config, token, visitor.state().visitorId);
  if (response.status === 409) {
    // Somebody else signed in with this browser before; the token was not used up.
    visitor.renew();
    response = await link(config, token, visitor.state().visitorId);
  }
  if (!response.ok) throw new Error(`quittance: not linked, status ${response.status}`);
  const decision = joined(config, visitor.state(), (await response.json()) as Answer);
  if (decision) visitor.keep(decision);
  return true;
}

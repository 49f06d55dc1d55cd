/**
 * Tells the service who is signed in, by the host's own token, and takes over what holds because of
 * that person's other devices. Travels in the dialog's file: only signed-in visitors need it.
 */
import { POST } from "./api";
import type { Config } from "./config";
import { type Choices, type Decision, outweighsGpc, type State } from "./state";

/** What this needs of the page's state. */
export interface Visitor {
  state(): Pick<State, "visitorId" | "decision">;
  /** Takes over what holds by the service. */
  keep(decision: Decision): void;
  /** Forgets the decision and the id of whoever was here before. */
  renew(): void;
}

interface Answer {
  readonly state: null | {
    readonly choices: Choices;
    readonly decided_at: string;
    readonly notice_version: string;
    readonly consent_id: string;
    readonly source: "this_device" | "other_device";
    readonly stale: boolean;
  };
}

const link = (config: Config, token: string, visitor: Visitor): Promise<Response> =>
  fetch(`${config.api}/v1/visitors/link`, {
    ...POST,
    credentials: "omit",
    headers: { ...POST.headers, Authorization: `Bearer ${token}` },
    body: JSON.stringify({ site_key: config.site_key, visitor_id: visitor.state().visitorId }),
  });

/** True once the visitor is linked; rejects with the status where the service refused. */
export async function identify(config: Config, visitor: Visitor, token: string): Promise<boolean> {
  let response = await link(config, token, visitor);
  if (response.status === 409) {
    // Somebody else signed in with this browser before; the token was not used up.
    visitor.renew();
    response = await link(config, token, visitor);
  }
  if (!response.ok) throw new Error(`quittance: not linked, status ${response.status}`);
  const { state } = (await response.json()) as Answer;
  if (state?.source !== "other_device") return true;
  const decidedAt = Date.parse(state.decided_at);
  const { decision: mine, visitorId } = visitor.state();
  // What was not recorded before is not in the answer, and holds if it is newer.
  if (mine && !mine.consentId && mine.decidedAt >= decidedAt) return true;
  // What is missing is open: a grant that has lapsed.
  const isAnswer = config.purposes.every(
    ({ id, required }) => required || Object.hasOwn(state.choices, id),
  );
  const outweighing = mine && outweighsGpc(mine) ? mine : null;
  visitor.keep({
    mode: config.mode,
    notice: state.notice_version,
    // Outdated: its refusals keep refusing, and the banner asks.
    material: isAnswer && !state.stale ? config.material : "-",
    gpc: outweighing !== null,
    visitorId,
    decidedAt,
    method: outweighing?.method ?? "api",
    choices: state.choices,
    consentId: state.consent_id,
  });
  return true;
}

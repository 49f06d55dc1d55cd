/**
 * Tells the service who is signed in, by the host's own token, and takes over what that person chose
 * on another device. Travels in the dialog's file: only signed-in visitors need it.
 */
import { POST } from "./api";
import type { Config, Mode } from "./config";
import type { Choices, Decision } from "./state";

/** What this needs of the page's state. */
export interface Visitor {
  id(): string;
  /** Stores a decision made elsewhere; it holds here if it is newer than the one of this page. */
  keep(decision: Decision): void;
  /** Forgets the decision and the id of whoever was here before; returns the new id. */
  renew(): string;
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
  let response = await link(config, token, visitor.id());
  // Somebody else signed in with this browser before; the token was not used up.
  if (response.status === 409) response = await link(config, token, visitor.renew());
  if (!response.ok) throw new Error(`quittance: not linked, status ${response.status}`);
  const { state } = (await response.json()) as Answer;
  if (state?.source !== "other_device") return true;
  visitor.keep({
    mode: state.mode,
    notice: state.notice_version,
    // Outdated: its refusals keep refusing, and the banner asks.
    material: state.stale ? "-" : config.material,
    gpc: false,
    visitorId: visitor.id(),
    decidedAt: Date.parse(state.decided_at),
    method: "api",
    choices: state.choices,
    consentId: state.consent_id,
  });
  return true;
}

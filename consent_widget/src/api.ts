/** Posts each decision as proof; what cannot be sent now waits in localStorage and is sent later. */
import type { Config, Method } from "./config";
import type { Decision } from "./state";
import { keyOf, local } from "./storage";

export interface ConsentBody {
  readonly event_id: string;
  readonly site_key: string;
  readonly visitor_id: string;
  readonly notice_version: string | number;
  readonly choices: Readonly<Record<string, boolean>>;
  readonly method: Method;
  readonly language: string;
  readonly region?: string;
  readonly regime?: string;
  readonly gpc: boolean;
  readonly decided_at: string;
  readonly page?: string;
}

export interface Recorded {
  readonly consentId: string;
  readonly decidedAt: number;
}

const KEPT = 20;
/** Milliseconds in which what a choice has opened begins to load, before its record is posted. */
const GOES_FIRST = 250;
const FIRST_WAIT = 2_000;
const LONGEST_WAIT = 300_000;
const TIMEOUT = 15_000;
/** Milliseconds after a choice in which its cookie is worth another try: until then a page's own holds. */
const REMEMBERED_WITHIN = 86_400_000;

export const POST = {
  method: "POST",
  mode: "cors",
  keepalive: true,
  headers: { "Content-Type": "application/json" },
} as const;

/** Version 4 (RFC 9562); `crypto.randomUUID` is missing on plain http pages. */
export const uuid = (): string =>
  crypto.randomUUID?.() ??
  "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) => {
    const [random = 0] = crypto.getRandomValues(new Uint8Array(1));
    return (Number(digit) ^ (random & (15 >> (Number(digit) / 4)))).toString(16);
  });

export function bodyOf(config: Config, decision: Decision, gpc: boolean): ConsentBody {
  return {
    event_id: uuid(),
    site_key: config.site_key,
    visitor_id: decision.visitorId,
    notice_version: config.notice_version,
    choices: decision.choices,
    method: decision.method,
    language: config.language,
    ...(config.region === null ? {} : { region: config.region }),
    ...(config.tightened && { regime: config.regime }),
    gpc,
    decided_at: new Date(decision.decidedAt).toISOString(),
    // Query and fragment may carry what the visitor typed.
    ...(/^http/.test(location.protocol) ? { page: location.origin + location.pathname } : {}),
  };
}

/** What a post came to: recorded; null: refused for good; a number: to wait for so many milliseconds. */
type Outcome = { readonly consentId: string; readonly token: string | undefined } | null | number;

/** What no repetition can mend: the body itself is refused. */
const REFUSED = new Set([400, 409, 413, 415, 422]);

/** A record is proof: it waits unless it is refused for good, also for a site that is set up anew. */
export function judge(status: number, retryAfter: string | null): "done" | "drop" | number {
  if (status >= 200 && status < 300) return "done";
  if (REFUSED.has(status)) return "drop";
  if (status < 500 && status !== 429) return LONGEST_WAIT;
  const seconds = /^\d{1,5}$/.test(retryAfter ?? "") ? Number(retryAfter) : 0;
  return Math.min(seconds * 1000, LONGEST_WAIT);
}

export interface Outbox {
  /** Soon; until then the body is safe in localStorage, and without one it goes at once. */
  send(body: ConsentBody): void;
  /** Try what waits, now; resolves when that is done, whoever began it. */
  flush(): Promise<void>;
  /** The page goes: send all side by side; what stays unanswered, the next page sends again. */
  leave(): void;
}

export function createOutbox(config: Config, onRecorded: (answer: Recorded) => void): Outbox {
  const key = `${keyOf(config.site_key)}_q`;
  const unsaved = new Map<string, ConsentBody>(); // where localStorage is blocked
  let flushing = false;
  let running = Promise.resolve();
  let failures = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function waiting(): ConsentBody[] {
    const found = new Map(unsaved);
    try {
      const stored: unknown = JSON.parse(local.get(key) ?? "[]");
      for (const body of Array.isArray(stored) ? (stored as Partial<ConsentBody>[]) : []) {
        if (typeof body?.event_id === "string" && body.site_key === config.site_key)
          found.set(body.event_id, body as ConsentBody);
      }
    } catch {
      // Not ours, or cut off: nothing to send.
    }
    return [...found.values()].sort((a, b) => (a.decided_at < b.decided_at ? -1 : 1));
  }

  /** Other tabs write here too, so read, change and write in one go. */
  function change(edit: (bodies: ConsentBody[]) => ConsentBody[]): void {
    const bodies = edit(waiting()).slice(-KEPT);
    const text = JSON.stringify(bodies);
    local.set(key, bodies.length ? text : null);
    unsaved.clear();
    if (bodies.length && local.get(key) !== text)
      for (const body of bodies) unsaved.set(body.event_id, body);
  }

  /** Posts within the time there is; `failed` where that fails. */
  async function ask<T>(
    address: string,
    credentials: RequestCredentials,
    body: object,
    read: (response: Response) => T | Promise<T>,
    failed: T,
  ): Promise<T> {
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), TIMEOUT);
    const init = { ...POST, credentials, body: JSON.stringify(body), signal: abort.signal };
    try {
      return await read(await fetch(address, init));
    } catch {
      return failed;
    } finally {
      clearTimeout(limit);
    }
  }

  const post = (body: ConsentBody): Promise<Outcome> =>
    ask<Outcome>(`${config.api}/v1/consent`, "omit", body, outcomeOf, 0);

  async function outcomeOf(response: Response): Promise<Outcome> {
    const verdict = judge(response.status, response.headers.get("Retry-After"));
    if (verdict === "drop") return null;
    if (verdict !== "done") return verdict;
    const answer = (await response.json()) as { consent_id?: unknown; remember_token?: string };
    // A 2xx without an id is some proxy's page, not the service.
    if (typeof answer?.consent_id !== "string") return 0;
    return { consentId: answer.consent_id, token: answer.remember_token };
  }

  /**
   * The site's own host sets the cookie anew, so that it lasts. False: try again later, with the
   * fresh token that the same record gets when it is sent once more.
   */
  const remember = async (consentId: string, token: string | undefined): Promise<boolean> =>
    !config.first_party ||
    !token ||
    ask(
      `${config.first_party}/b/${config.site_key}/remember`,
      "include",
      { consent_id: consentId, token },
      ({ status }) => status < 500 && status !== 429,
      false,
    );

  function retry(ms: number): void {
    if (failures === 0)
      console.warn(
        `quittance: not recorded yet, tries again. Is ${location.origin} an origin of the site?`,
      );
    const ceiling = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures++);
    timer = setTimeout(flush, Math.max(ms, Math.random() * ceiling));
  }

  const flush = (): Promise<void> => {
    if (!flushing) running = drain();
    return running;
  };

  async function drain(): Promise<void> {
    flushing = true;
    clearTimeout(timer);
    try {
      for (let body = waiting()[0]; body; body = waiting()[0]) {
        const { event_id, decided_at } = body;
        const outcome = await post(body);
        if (typeof outcome === "number") return retry(outcome);
        if (outcome) {
          const { consentId, token } = outcome;
          const decidedAt = Date.parse(decided_at);
          onRecorded({ consentId, decidedAt });
          const isDone = await remember(consentId, token);
          if (!isDone && Date.now() - decidedAt < REMEMBERED_WITHIN) return retry(0);
        }
        failures = 0;
        change((bodies) => bodies.filter((each) => each.event_id !== event_id));
      }
    } finally {
      flushing = false;
    }
  }

  window.addEventListener("online", flush);
  return {
    send(body) {
      change((bodies) => [...bodies, body]);
      if (flushing) return; // it takes this one too
      clearTimeout(timer);
      if (unsaved.size > 0) void flush();
      else timer = setTimeout(flush, GOES_FIRST);
    },
    flush,
    leave() {
      const [, ...rest] = waiting();
      void flush();
      if (failures === 0) for (const body of rest) void post(body);
    },
  };
}

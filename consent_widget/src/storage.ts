/**
 * The decision in the cookie `qt_{site_key}`, mirrored in localStorage.
 *
 * One line, `|` between fields, each percent-encoded:
 * `2|mode|notice_version|visitor_id|decided_at_ms|method|choices|consent_id|material`, where mode is
 * `i` (opt-in), `o` (opt-out) or `n` (notice), with a `g` behind it if the GPC signal was on, and
 * choices are `+granted` and `-denied` purpose ids joined by `:`. The service writes the same line
 * when it sets the cookie itself. Lines of format 1, which ended before `|material`, are still read.
 */
import { type Config, METHODS, type Method, type Mode } from "./config";
import { cookies, readCookies, writeCookie } from "./dom";
import type { Decision } from "./state";

const FORMAT = "2";
const MODES: Readonly<Record<string, Mode>> = { i: "opt_in", o: "opt_out", n: "notice" };
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function encode(decision: Decision): string {
  const { mode, gpc, notice, visitorId, decidedAt, method, choices, consentId, material } =
    decision;
  const letter = Object.keys(MODES).find((each) => MODES[each] === mode) + (gpc ? "g" : "");
  const answers = Object.entries(choices)
    .map(([id, granted]) => (granted ? "+" : "-") + encodeURIComponent(id))
    .join(":");
  const line = [FORMAT, letter, encodeURIComponent(notice), visitorId, decidedAt, method, answers];
  return [...line, encodeURIComponent(consentId ?? ""), encodeURIComponent(material)].join("|");
}

/** Anything that is not exactly what `encode` writes, or once wrote, is no decision at all. */
export function decode(line: string | null | undefined): Decision | null {
  const fields = line?.split("|") ?? [];
  const [format, letters, notice, visitorId, at, method, answers, consentId, material] = fields;
  if (!(format === FORMAT ? fields.length === 9 : format === "1" && fields.length === 8))
    return null;
  const [, letter, signal] = /^([ion])(g?)$/.exec(letters ?? "") ?? [];
  const mode = MODES[letter ?? ""];
  if (!mode || !UUID.test(visitorId ?? "")) return null;
  if (!/^\d{1,15}$/.test(at ?? "") || !METHODS.includes(method as Method)) return null;
  try {
    const pairs: [string, boolean][] = [];
    for (const answer of answers ? answers.split(":") : []) {
      if (!/^[+-]./.test(answer)) return null;
      pairs.push([decodeURIComponent(answer.slice(1)), answer[0] === "+"]);
    }
    return {
      mode,
      gpc: signal === "g",
      notice: decodeURIComponent(notice ?? ""),
      material: decodeURIComponent(material ?? ""),
      visitorId: (visitorId ?? "").toLowerCase(),
      decidedAt: Number(at),
      method: method as Method,
      choices: Object.freeze(Object.fromEntries(pairs)),
      consentId: decodeURIComponent(consentId ?? "") || null,
    };
  } catch {
    return null; // a broken percent sequence
  }
}

/** localStorage, or silence where the browser forbids it. */
export const local = {
  get(key: string): string | null {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key: string, value: string | null): void {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch {
      // Blocked or full: the cookie and this page's memory remain.
    }
  },
};

export const keyOf = (siteKey: string): string => `qt_${siteKey}`;

/** In the mirror after `forget`: no decision, and what other tools kept is another person's, too. */
const AFRESH = "-";

/** Takes the decision away from both stores, wherever the cookie was set. */
export function forget({ site_key, first_party }: Pick<Config, "site_key" | "first_party">): void {
  const shared = sharedDomain(first_party, location.hostname);
  for (const domain of ["", shared && `; Domain=${shared}`])
    writeCookie(`${keyOf(site_key)}=; Path=/; Max-Age=0${domain}`);
  local.set(keyOf(site_key), AFRESH);
}

/** Has somebody else's decision been forgotten here, and none been made since? */
export const isAfresh = (siteKey: string): boolean => local.get(keyOf(siteKey)) === AFRESH;

/** What cookies and mirror say of a site. */
export type Stores = readonly [cookies: string, mirror: string | null];

export const readStores = (siteKey: string): Stores => [readCookies(), local.get(keyOf(siteKey))];

/** The newest decision any store still has. */
export function load(siteKey: string, [jar, mirror] = readStores(siteKey)): Decision | null {
  const key = keyOf(siteKey);
  let newest: Decision | null = null;
  // A parent domain may hold a cookie of the same name, so there can be several.
  const ours = cookies(jar).filter(([name]) => name === key);
  // Of the same moment the mirror's: the site's own host sets what a record says, also later on.
  for (const line of [mirror, ...ours.map(([, value]) => value)]) {
    const decision = decode(line);
    if (decision && (!newest || decision.decidedAt > newest.decidedAt)) newest = decision;
  }
  return newest;
}

/** Where the site's own host is another one than the page's: the longest ending both share. */
export function sharedDomain(firstParty: string | undefined, host: string): string {
  const other = firstParty ? new URL(firstParty).hostname : host;
  if (other === host) return "";
  const ours = host.split(".").reverse();
  const theirs = other.split(".").reverse();
  const different = ours.findIndex((label, index) => label !== theirs[index]);
  const shared = ours.slice(0, different < 0 ? ours.length : different).reverse();
  return shared.length > 1 ? shared.join(".") : "";
}

/**
 * Kept for the choice's term, and while a refusal is not asked about again.
 * A cookie that says it already stays as it is: if the site's own host has set it, it lasts longer
 * than one of ours would.
 */
export function save(
  {
    site_key,
    expiry_days,
    reask_after_days,
    first_party,
  }: Pick<Config, "site_key" | "expiry_days" | "reask_after_days" | "first_party">,
  decision: Decision,
): void {
  const key = keyOf(site_key);
  const line = encode(decision);
  const secure = location.protocol === "https:" ? "; Secure" : "";
  const shared = sharedDomain(first_party, location.hostname);
  const ends = decision.decidedAt + Math.max(expiry_days, reask_after_days ?? 0) * 86_400_000;
  const seconds = Math.round((ends - Date.now()) / 1000);
  const holds = (): boolean => cookies().some(([name, value]) => name === key && value === line);
  // Before its record has an id nobody else can have stored it; each look waits for another process.
  let isThere = decision.consentId !== null && holds();
  // Browsers refuse a domain that is nobody's own, such as `co.uk`: then this host has to do.
  for (const domain of shared ? [`; Domain=${shared}`, ""] : [""]) {
    if (isThere) break;
    writeCookie(`${key}=${line}; Path=/; Max-Age=${seconds}; SameSite=Lax${secure}${domain}`);
    isThere = domain !== "" && holds();
  }
  local.set(key, line);
}

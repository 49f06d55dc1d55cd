/**
 * What somebody told another consent manager of this site: read once, when nothing is stored here, and
 * recorded as migrated. Cookie formats: see each reader; as found in the peers' sources and
 * documentation on 2026-11-23.
 *
 * It counts only if it answers every purpose of the site and has not run out; else the banner asks.
 */
import type { Config } from "../config";
import { cookies } from "../dom";
import type { Earlier } from "../main";
import { isInTime } from "../state";
import { local } from "../storage";

/** The other manager's own names for what it asked about, and when, as far as it kept that. */
interface Found {
  readonly answers: Readonly<Record<string, boolean>>;
  readonly at?: number;
  /** What is not among the answers was refused. */
  readonly isComplete?: boolean;
}

/** Their name -> ours, unless the site's `mapping` says otherwise. */
const NAMES: Readonly<Record<string, string>> = {
  C0002: "analytics",
  C0003: "functional",
  C0004: "advertising",
  preferences: "functional",
  statistics: "analytics",
  marketing: "advertising",
  marketingAndAnalytics: "analytics",
};

type Reader = (read: (name: string) => string | undefined) => Found | null;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const booleans = (value: unknown): Record<string, boolean> =>
  Object.fromEntries(
    Object.entries(isRecord(value) ? value : {}).filter(([, each]) => typeof each === "boolean"),
  ) as Record<string, boolean>;

/** `OptanonConsent=...&groups=C0001:1,C0002:0&...`; a choice was made once the box was closed. */
const oneTrust: Reader = (read) => {
  const closed = read("OptanonAlertBoxClosed");
  const groups = new URLSearchParams(read("OptanonConsent") ?? "").get("groups");
  if (!closed || !groups) return null;
  const pairs = groups.split(",").map((group) => group.split(":"));
  const answers = Object.fromEntries(pairs.map(([id = "", value]) => [id, value === "1"]));
  return { answers, at: Date.parse(closed) };
};

/** `CookieConsent={stamp:'...',statistics:true,method:'explicit',utc:1700000000000,...}`, not JSON. */
const cookiebot: Reader = (read) => {
  const text = read("CookieConsent") ?? "";
  if (!text.includes("method:'explicit'")) return null;
  const pairs = [...text.matchAll(/(\w+):(true|false)/g)];
  const answers = Object.fromEntries(pairs.map(([, name = "", value]) => [name, value === "true"]));
  return { answers, at: Number(/utc:(\d+)/.exec(text)?.[1]) };
};

/** `klaro={"service":true,...}`, as a cookie or in localStorage. */
const klaro: Reader = (read) => {
  const text = read("klaro") ?? local.get("klaro");
  return text ? { answers: booleans(JSON.parse(text)) } : null;
};

/** `cc_cookie={"categories":["analytics"],"lastConsentTimestamp":"...",...}`: unnamed is refused. */
const vanillaCookieConsent: Reader = (read) => {
  const stored: unknown = JSON.parse(read("cc_cookie") ?? "null");
  if (!isRecord(stored) || !Array.isArray(stored.categories)) return null;
  const granted = stored.categories.map(String);
  const answers = Object.fromEntries(granted.map((each) => [each, true]));
  return { answers, at: Date.parse(String(stored.lastConsentTimestamp)), isComplete: true };
};

/** `tarteaucitron=!service=true!other=false!third=wait`; what waits was not answered. */
const tarteaucitron: Reader = (read) => {
  const pairs = [...(read("tarteaucitron") ?? "").matchAll(/!(\w+)=(true|false)/g)];
  if (pairs.length === 0) return null;
  const answers = pairs.map(([, name = "", value]) => [name, value === "true"] as const);
  return { answers: Object.fromEntries(answers) };
};

/** Segment's consent manager: `tracking-preferences={"destinations":{...},"custom":{...}}`. */
const segment: Reader = (read) => {
  const stored: unknown = JSON.parse(read("tracking-preferences") ?? "null");
  if (!isRecord(stored)) return null;
  return { answers: { ...booleans(stored.destinations), ...booleans(stored.custom) } };
};

const READERS = [oneTrust, cookiebot, klaro, vanillaCookieConsent, tarteaucitron, segment];

function cookie(name: string): string | undefined {
  const value = cookies().find(([each]) => each === name)?.[1];
  return value === undefined ? undefined : decodeURIComponent(value);
}

export function earlier(config: Config, now: number): Earlier | null {
  for (const reader of READERS) {
    try {
      const found = reader(cookie);
      const earlier = found && translated(config, found, now);
      if (earlier) return earlier;
    } catch {
      // Not what that manager writes: as if there were nothing.
    }
  }
  return null;
}

/** A purpose made of several of theirs is granted only if all are. */
function translated(config: Config, found: Found, now: number): Earlier | null {
  const { answers, isComplete, at } = found;
  const purposeOf = (name: string): string => config.mapping?.[name] ?? NAMES[name] ?? name;
  const asked = config.purposes.filter(({ required }) => !required).map(({ id }) => id);
  const pairs = asked.map((id) => {
    const theirs = Object.keys(answers).filter((name) => purposeOf(name) === id);
    return [id, theirs.every((name) => answers[name]) && theirs.length > 0] as const;
  });
  const names = new Set(Object.keys(answers).map(purposeOf));
  if (!isComplete && !asked.every((id) => names.has(id))) return null;
  const decidedAt = at !== undefined && Number.isFinite(at) ? at : now;
  if (!isInTime(config, { decidedAt }, now)) return null;
  return { choices: Object.fromEntries(pairs), at: decidedAt };
}

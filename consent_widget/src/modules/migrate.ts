/**
 * What somebody told another consent manager of this site: read once, when nothing is stored here, and
 * recorded as migrated. Cookie formats: see each reader; as found in the peers' sources and
 * documentation on 2026-11-23.
 *
 * It counts only if it answers every purpose of the site and has not run out; else the banner asks.
 */
import type { Config } from "../config";
import { booleans, cookie, type Found, isRecord, translated } from "../earlier";
import type { Earlier } from "../main";
import { local } from "../storage";

type Reader = (read: (name: string) => string | undefined) => Found | null;

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

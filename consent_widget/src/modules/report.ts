/**
 * Report-only: tells the service what this page holds that no rule of the site covers. By name alone,
 * without what looks random in it; no value, no address, no visitor. It changes nothing.
 */
import { tell } from "../beacon";
import type { Config, Tracker } from "../config";
import type { Quittance } from "../main";

type Kind = Tracker["kind"];
export type Report = Record<Kind, string[]>;

const SHARE = 0.1;
const MOST = 50;

const isRandom = (part: string): boolean =>
  /\d/.test(part) || (part.length > 5 && 4 * part.split(/[A-Z]+/).length > part.length + 4);

/**
 * `_ga_G1ABC2DEF` as `_ga_*`: cut off where a stretch of six or more begins that looks random (digits,
 * or letters in no word's order).
 */
export function reduced(name: string): string {
  let start = -1;
  let end = 0;
  for (const { 0: part, index } of name.matchAll(/[a-z0-9]+/gi)) {
    if (!isRandom(part)) continue;
    if (start < 0) start = index;
    end = index + part.length;
  }
  return end - start < 6 ? name : `${name.slice(0, start)}*`;
}

/** A host's star stands in front, a name's at the end; neither kind has the other's. */
const covers = (pattern: string, name: string): boolean =>
  pattern === name ||
  (pattern.startsWith("*.") && `.${name}`.endsWith(pattern.slice(1))) ||
  (pattern.endsWith("*") && name.startsWith(pattern.slice(0, -1)));

const hostOf = (address: string): string => new URL(address).hostname;

/** What no rule of the site covers, each once and at most 50 together. */
export function unruled({ api, first_party = api, trackers = [] }: Config): Report {
  const own = [location.hostname.replace(/^www\./, ""), hostOf(api), hostOf(first_party)];
  const report: Report = { host: [], cookie: [], storage: [] };
  let room = MOST;
  const add = (kind: Kind, read: () => string[]): void => {
    try {
      for (const name of read()) {
        // `@` stands in people's addresses.
        if (!/^(?!qt_)[^@]{2,100}$/.test(name)) continue;
        if (trackers.some((each) => each.kind === kind && covers(each.pattern, name))) continue;
        const pattern = kind === "host" ? name : reduced(name);
        if (!report[kind].includes(pattern) && room-- > 0) report[kind].push(pattern);
      }
    } catch {
      // Blocked: then nothing is kept there either.
    }
  };
  add("cookie", () => document.cookie.split("; ").map((pair) => pair.replace(/=.*/s, "")));
  add("host", () =>
    performance
      .getEntriesByType("resource")
      .map(({ name }) => hostOf(name))
      .filter((host) => !own.some((each) => covers(`*.${each}`, host))),
  );
  add("storage", () => Object.keys(localStorage));
  add("storage", () => Object.keys(sessionStorage));
  return report;
}

export function install(_: Quittance, config: Config): void {
  if (Math.random() >= SHARE && !/[?&]quittance-report\b/.test(location.search)) return;
  const report = (): void => {
    const found = unruled(config);
    if (Object.values(found).some((names) => names.length > 0)) tell(config, "seen", found);
  };
  window.addEventListener("pagehide", report, { once: true });
}

/**
 * Report-only: tells the service what this page holds that no rule of the site covers. By name alone,
 * without what looks random in it; no value, no address, no visitor. It changes nothing.
 */
import { tell } from "../beacon";
import type { Config, Tracker } from "../config";
import { cookies } from "../dom";
import type { Quittance } from "../main";
import { fits, isHost } from "../rules";

type Kind = Tracker["kind"];
export type Report = Record<Kind, string[]>;

const SHARE = 0.1;
const ALWAYS = /[?&]quittance-report\b/;
const MOST = 50;

const isRandom = (part: string): boolean =>
  /\d/.test(part) ||
  (part.length > 5 &&
    (/^[a-f]+$/i.test(part) || 4 * (part.match(/[A-Z]+/g) ?? []).length > part.length));

/**
 * `_ga_G1ABC2DEF` as `_ga_*`: cut off where a stretch of six or more begins that looks random (digits,
 * or letters in no word's order).
 */
export function reduced(name: string): string {
  const random = [...name.matchAll(/[A-Za-z0-9]+/g)].filter(([part]) => isRandom(part));
  const [first, last] = [random[0], random.at(-1)];
  if (!first || !last || last.index + last[0].length - first.index < 6) return name;
  return `${name.slice(0, first.index)}*`;
}

/** A cookie or key that a rule can name; `@` stands in addresses of people. */
const isName = (name: string): boolean =>
  /^[^\s;,=*"@]{2,100}$/.test(name) && !name.startsWith("qt_");

const hostOf = (address: string): string => {
  try {
    return new URL(address).hostname;
  } catch {
    return "";
  }
};

function hosts({ api, first_party }: Config): string[] {
  const own = [location.hostname.replace(/^www\./, "*."), `*.${location.hostname}`];
  own.push(hostOf(api), hostOf(first_party ?? ""));
  return performance
    .getEntriesByType("resource")
    .map(({ name }) => hostOf(name))
    .filter((host) => /\.[a-z][a-z0-9-]+$/.test(host) && !own.some((each) => isHost(each, host)));
}

function keys(store: "localStorage" | "sessionStorage"): string[] {
  try {
    return Object.keys(window[store]);
  } catch {
    return []; // blocked: then nothing is kept there either
  }
}

/** What no rule of the site covers, each once and at most 50 together. */
export function unruled(config: Config): Report {
  const has = (kind: Kind, name: string): boolean =>
    (config.trackers ?? []).some(
      (each) => each.kind === kind && (kind === "host" ? isHost : fits)(each.pattern, name),
    );
  const names = (kind: Kind, found: string[]): [Kind, string][] =>
    found.filter((name) => isName(name) && !has(kind, name)).map((name) => [kind, name]);
  const report: Report = { host: [], cookie: [], storage: [] };
  const cookieNames = cookies().map(([name]) => name);
  let room = MOST;
  for (const [kind, name] of [
    ...names("cookie", cookieNames),
    ...names("host", hosts(config)),
    ...names("storage", [...keys("localStorage"), ...keys("sessionStorage")]),
  ]) {
    const pattern = kind === "host" ? name : reduced(name);
    if (pattern.length < 3 && pattern.endsWith("*")) continue;
    if (report[kind].includes(pattern) || room-- < 1) continue;
    report[kind].push(pattern);
  }
  return report;
}

export function install(_: Quittance, config: Config): void {
  if (Math.random() >= SHARE && !ALWAYS.test(location.search)) return;
  const report = (): void => {
    const found = unruled(config);
    if (Object.values(found).some((each) => each.length > 0)) tell(config, "seen", found);
  };
  window.addEventListener("pagehide", report, { once: true });
}

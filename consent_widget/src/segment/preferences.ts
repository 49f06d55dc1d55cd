/**
 * The cookie of `@segment/consent-manager`: `{"version":1,"destinations":{id:bool},"custom":{category:
 * bool}}`, encoded as js-cookie 2 does, by default for 365 days on the topmost domain that takes it.
 */
import { writeCookie } from "../dom";
import { cookie } from "../earlier";

export type Answers = Readonly<Record<string, boolean>>;

export interface Preferences {
  readonly destinationPreferences?: Answers;
  readonly customPreferences?: Answers;
}

export interface CookieOptions {
  readonly cookieName?: string;
  readonly cookieDomain?: string;
  /** Days. */
  readonly cookieExpires?: number;
  readonly cookieAttributes?: {
    readonly expires?: number | string | Date;
    [name: string]: unknown;
  };
}

const DAY = 86_400_000;

export function read(name = "tracking-preferences"): Preferences {
  try {
    const { destinations, custom } = JSON.parse(cookie(name) ?? "{}");
    return { destinationPreferences: destinations, customPreferences: custom };
  } catch {
    return {}; // not what that manager writes
  }
}

/** What js-cookie leaves as it is stays readable: all of ASCII but what a cookie cannot hold. */
const encoded = (text: string): string => text.replace(/[ "%,;\\]|[^ -~]+/g, encodeURIComponent);

/** A number counts days. */
const dateOf = (expires: number | string | Date): string =>
  new Date(typeof expires === "number" ? Date.now() + expires * DAY : expires).toUTCString();

const attributesOf = (attributes: Readonly<Record<string, unknown>>): string =>
  Object.entries(attributes)
    .filter(([, value]) => value)
    .map(([name, value]) => (value === true ? `; ${name}` : `; ${name}=${value}`))
    .join("");

/** The host's endings, shortest first: browsers refuse those that are nobody's own, such as `co.uk`. */
const endings = (host: string): string[] =>
  host
    .split(".")
    .map((_, index, labels) => labels.slice(index).join("."))
    .reverse();

export function write(preferences: Preferences, options: CookieOptions): void {
  const { cookieName = "tracking-preferences", cookieDomain, cookieExpires = 365 } = options;
  const { expires = cookieExpires, ...attributes } = options.cookieAttributes ?? {};
  const value = {
    version: 1,
    destinations: preferences.destinationPreferences,
    custom: preferences.customPreferences,
  };
  const text = encoded(JSON.stringify(value));
  for (const domain of cookieDomain ? [cookieDomain] : [...endings(location.hostname), ""]) {
    const all = attributesOf({ path: "/", domain, ...attributes, expires: dateOf(expires) });
    try {
      writeCookie(`${cookieName}=${text}${all}`);
      if (cookie(cookieName) === decodeURIComponent(text)) return;
    } catch {
      return; // a browser without cookies
    }
  }
}

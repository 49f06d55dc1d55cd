/**
 * Removes what a denied purpose left in the browser: cookies on this host and its parents, and keys
 * of web storage. `HttpOnly` cookies are out of a script's reach; the service expires those.
 */
import type { Tracker } from "./config";
import { cookies, writeCookie } from "./dom";

export interface Swept {
  readonly cleared: readonly string[];
  /** Still there afterwards: set by another host or for another path. */
  readonly left: readonly string[];
}

const fits = (pattern: string, name: string): boolean =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;

const names = (): string[] => cookies().map(([name]) => name);

/** `shop.example.com` -> itself and `example.com`; browsers refuse what is nobody's own. */
function hosts(): string[] {
  const labels = location.hostname.split(".");
  return labels.slice(0, -1).map((_, index) => labels.slice(index).join("."));
}

/** `/a/b/c` -> `/`, `/a`, `/a/`, `/a/b`, ... */
function paths(): string[] {
  const steps = location.pathname.split("/").filter(Boolean);
  const folders = steps.map((_, index) => `/${steps.slice(0, index + 1).join("/")}`);
  return ["/", ...folders.flatMap((folder) => [folder, `${folder}/`])];
}

function expire(name: string): void {
  for (const path of paths())
    for (const host of ["", ...hosts()])
      writeCookie(`${name}=; Max-Age=0; Path=${path}${host && `; Domain=${host}`}`);
}

function clearStorage(store: Storage, isOurs: (name: string) => boolean): string[] {
  const found = Object.keys(store).filter(isOurs);
  for (const name of found) store.removeItem(name);
  return found;
}

export function sweep(trackers: readonly Tracker[], isDenied: (purpose: string) => boolean): Swept {
  const ruled =
    (kind: Tracker["kind"]) =>
    (name: string): boolean =>
      trackers.some(
        (each) => each.kind === kind && isDenied(each.purpose) && fits(each.pattern, name),
      );
  const found = [...new Set(names().filter(ruled("cookie")))];
  found.forEach(expire);
  const left = found.length > 0 ? names().filter(ruled("cookie")) : [];
  const cleared = found.filter((name) => !left.includes(name));
  for (const store of ["localStorage", "sessionStorage"] as const) {
    try {
      cleared.push(...clearStorage(window[store], ruled("storage")));
    } catch {
      // Blocked: then nothing is kept there either.
    }
  }
  return { cleared, left: [...new Set(left)] };
}

/** What a site's rules hit: see `Tracker`. */

export const fits = (pattern: string, name: string): boolean =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;

/** `*.stats.example` is the host itself and every one below it. */
export const isHost = (pattern: string, host: string): boolean =>
  pattern.startsWith("*.") ? `.${host}`.endsWith(pattern.slice(1)) : host === pattern;

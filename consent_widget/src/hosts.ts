/** `*.stats.example` is the host itself and every one below it. */
export const isHost = (pattern: string, host: string): boolean =>
  pattern.startsWith("*.") ? `.${host}`.endsWith(pattern.slice(1)) : host === pattern;

/** The browser's time zone may only tighten: who seems to live under a law that asks first is asked. */
import type { Config } from "./config";

const zoneHere = (): string | undefined => Intl.DateTimeFormat().resolvedOptions().timeZone;

export function underZone(
  config: Config,
  // Asked only where it matters: the first use of Intl takes longer than all the rest of the start.
  timeZone: () => string | undefined = zoneHere,
): Config {
  const { strict } = config;
  if (!strict) return config;
  const zone = timeZone(); // undefined in some old browsers
  const regime = strict.zones.find(([start]) => zone?.startsWith(start))?.[1];
  if (!regime) return config;
  return {
    ...config,
    regime,
    mode: "opt_in",
    shown: true,
    reask_after_days: 0,
    honours_gpc: strict.honours_gpc.includes(regime),
    texts: { ...config.texts, ...strict.texts },
    tightened: true,
  };
}

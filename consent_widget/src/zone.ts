/** The browser's time zone may only tighten: who seems to live under a law that asks first is asked. */
import type { Config } from "./config";

export function underZone(
  config: Config,
  // Undefined in some old browsers.
  timeZone: string | undefined = Intl.DateTimeFormat().resolvedOptions().timeZone,
): Config {
  const { strict } = config;
  const regime = strict?.zones.find(([zone]) => timeZone?.startsWith(zone))?.[1];
  if (!strict || !regime) return config;
  return {
    ...config,
    regime,
    mode: "opt_in",
    shown: true,
    honours_gpc: strict.honours_gpc.includes(regime),
    texts: { ...config.texts, ...strict.texts },
    tightened: true,
  };
}

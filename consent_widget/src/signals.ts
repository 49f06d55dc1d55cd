/** Global Privacy Control, from the browser or from the header the service saw. */
import type { Config } from "./config";

/** Only the exact value `true` counts (W3C GPC); anything else is as if it were absent. */
export function hasGpc(config: Pick<Config, "gpc">, navigator: object): boolean {
  const signal = (navigator as { globalPrivacyControl?: unknown }).globalPrivacyControl;
  return signal === true || config.gpc === true;
}

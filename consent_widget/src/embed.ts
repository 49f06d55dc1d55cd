/** The script of a site, from its last line on: `quittanceWidget.start(config, modules)`. */
import type { Config } from "./config";
import { type Module, start as startNow } from "./main";
import { readStores, type Stores } from "./storage";

/**
 * Runs before any other script does: microtasks come as soon as this one is done, which is when
 * `window.quittance` is there. Chromium looks up each function under way in the source when cookies
 * are read, and parses it anew for that; so they are read with hardly one under way.
 */
export function start(config: Config, modules: readonly Module[]): void {
  let stores: Stores | undefined;
  queueMicrotask(() => {
    stores = readStores(config.site_key);
  });
  queueMicrotask(() => void startNow(config, modules, undefined, stores));
}

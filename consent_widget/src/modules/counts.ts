/** Counts the page views in which the banner was shown: which one, and nothing about the visitor. */
import { tell } from "../beacon";
import type { Config } from "../config";
import type { Quittance } from "../main";

export function install(quittance: Quittance, config: Config): void {
  const { notice_version, language, regime } = config;
  let isAsked = true;
  void quittance.settled.then(() => {
    isAsked = false;
  });
  const stop = quittance.on("display", ({ visible }) => {
    if (!visible) return;
    stop();
    // Later: whether somebody is asked, or has opened the dialog themselves, is known by then.
    setTimeout(() => {
      if (isAsked) tell(config, "shown", { notice_version, language, regime });
    });
  });
}

/**
 * Segment: `quittance.withConsent(analytics)` for analytics-next, and everything that a page made for
 * `@segment/consent-manager` expects, where it defines `window.consentManagerConfig`.
 */
import type { Config } from "../config";
import type { Quittance } from "../main";
import { rulesOf } from "../segment/rules";
import type { Analytics } from "../segment/sdk";
import { wrap } from "../segment/with_consent";

export { connect as install, earlierOf as earlier } from "../segment/drop_in";

/** For pages that hold the object already; the script tag's way is `quittance.withConsent`. */
export function withConsent<T extends Analytics>(
  analytics: T,
  quittance: Quittance,
  config: Pick<Config, "mapping" | "purposes">,
): T {
  // Where consent is asked for first, closing the banner unanswered settles it too: with nothing.
  const start = quittance.mode === "opt_in" ? quittance.settled : quittance.ready;
  return wrap(analytics, quittance, start, {
    rules: rulesOf(config, quittance.has),
    stamp: () => ({ categoryPreferences: quittance.choices() }),
    tell: (sdk) => void sdk.track("Segment Consent Preference Updated"),
  });
}

export const members = (quittance: Quittance, config: Config): object => ({
  withConsent: <T extends Analytics>(analytics: T): T => withConsent(analytics, quittance, config),
});

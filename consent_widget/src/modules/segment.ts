/**
 * Segment: `quittance.withConsent(analytics)` for analytics-next, and everything that a page made for
 * `@segment/consent-manager` expects, where it defines `window.consentManagerConfig`.
 */
import type { Config } from "../config";
import type { Quittance } from "../main";
import type { Analytics } from "../segment/sdk";
import { withConsent } from "../segment/with_consent";

export { connect as install, earlierOf as earlier } from "../segment/drop_in";

export const members = (quittance: Quittance, config: Config): object => ({
  withConsent: <T extends Analytics>(analytics: T): T => withConsent(analytics, quittance, config),
});

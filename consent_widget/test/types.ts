/** Compiled by `npm run check`, never run: the types of the package are those of the real thing. */
import type { AnalyticsBrowser } from "@segment/analytics-next";
import type * as config from "../src/config";
import type * as real from "../src/main";
import type { load } from "../src/npm";
import type { Analytics } from "../src/segment/sdk";
import type { Choices } from "../src/state";
import type { Swept } from "../src/sweep";
import type * as declared from "../types";

/** Identical, down to `readonly` and `?`; assignable alone would let a member go missing. */
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Fits<A, B> = A extends B ? true : false;
type Needed<T> = { [K in keyof T]-?: object extends Pick<T, K> ? never : K }[keyof T];
type AllOf<_ extends readonly true[]> = never;

export type Held = AllOf<
  [
    Same<declared.Choices, Choices>,
    Same<declared.Mode, config.Mode>,
    Same<declared.Method, config.Method>,
    Same<declared.Swept, Swept>,
    Same<declared.Change, real.Change>,
    Same<declared.Events, real.Events>,
    Same<Omit<declared.Quittance, "withConsent">, Omit<real.Quittance, never>>,
    Same<typeof declared.load, typeof load>,
    // Whatever `withConsent` takes may be handed to it, and nothing it would not take.
    Fits<Analytics, declared.SegmentAnalytics>,
    Fits<AnalyticsBrowser, declared.SegmentAnalytics>,
    Same<keyof declared.SegmentAnalytics, Needed<Analytics>>,
  ]
>;

/** Stories of a person with three browsers, drawn by lot: who signs in where, and what they do there. */
import type { Mode } from "../src/config";
import { DAY, IDS } from "./person";

export const MINUTE = 60_000;

export interface Browser {
  readonly name: string;
  readonly mode: Mode;
  readonly gpc: boolean;
  /** Which of its two stores lasts until the next page. */
  readonly keeps: "both" | "cookie" | "mirror";
}

export type Act = "accept" | "reject" | "withdraw" | "dismiss" | Readonly<Record<string, boolean>>;

/** A page load, and what the person does there. */
export interface Step {
  readonly browser: Browser;
  /** Milliseconds since the step before. */
  readonly after: number;
  readonly isSignedIn: boolean;
  readonly act?: Act | null;
  /** Acts before the page says who is there. */
  readonly isEarly?: boolean;
  /** Records cannot be sent. */
  readonly isOffline?: boolean;
  readonly hasNewNotice?: boolean;
  /** Nobody has done anything for a while: nothing changes any more. */
  readonly isCalm?: boolean;
}

/** By the generator of Park and Miller. */
function lots(seed: number): () => number {
  const end = 2 ** 31 - 1;
  let state = (seed * 1_640_531) % end;
  return () => {
    state = (state * 48_271) % end;
    return state / end;
  };
}

export function draw(seed: number, modes: readonly Mode[]): { browsers: Browser[]; steps: Step[] } {
  const lot = lots(seed);
  const chance = (share: number): boolean => lot() < share;
  const pick = <T>(from: readonly T[]): T => from[Math.floor(lot() * from.length)] as T;
  const browsers = (["phone", "laptop", "tablet"] as const).map((name) => ({
    name,
    mode: pick(modes),
    gpc: chance({ phone: 0, laptop: 0.3, tablet: 0.9 }[name]),
    keeps: pick(["both", "both", "cookie", "mirror"] as const),
  }));
  const act = (): Act | null => {
    const all = Object.fromEntries(IDS.map((id) => [id, chance(0.5)]));
    const one = { [pick(IDS)]: chance(0.5) };
    return pick([null, "accept", "reject", "withdraw", "dismiss", all, one, one]);
  };
  const step = (): Step => ({
    browser: pick(browsers),
    after: chance(0.15) ? lot() * 100 * DAY : (6 + lot() * 60) * MINUTE,
    isSignedIn: chance(0.8),
    act: chance(0.6) ? act() : null,
    isEarly: chance(0.5),
    isOffline: chance(0.1),
    hasNewNotice: chance(0.06),
  });
  return { browsers, steps: Array.from({ length: 14 }, step) };
}

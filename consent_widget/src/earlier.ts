/** What another consent manager's answers mean here; for the modules that read them. */
import type { Config } from "./config";
import { cookies } from "./dom";
import type { Earlier } from "./main";
import { isInTime } from "./state";

/** The other manager's own names for what it asked about, and when, as far as it kept that. */
export interface Found {
  readonly answers: Readonly<Record<string, boolean>>;
  readonly at?: number;
  /** What is not among the answers was refused. */
  readonly isComplete?: boolean;
}

/** Their name -> ours, unless the site's `mapping` says otherwise. */
const NAMES: Readonly<Record<string, string>> = {
  C0002: "analytics",
  C0003: "functional",
  C0004: "advertising",
  preferences: "functional",
  statistics: "analytics",
  marketing: "advertising",
  marketingAndAnalytics: "analytics",
};

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const booleans = (value: unknown): Record<string, boolean> =>
  Object.fromEntries(
    Object.entries(isRecord(value) ? value : {}).filter(([, each]) => typeof each === "boolean"),
  ) as Record<string, boolean>;

export function cookie(name: string): string | undefined {
  const value = cookies().find(([each]) => each === name)?.[1];
  return value === undefined ? undefined : decodeURIComponent(value);
}

export const purposeOf = ({ mapping }: Pick<Config, "mapping">, name: string): string =>
  mapping?.[name] ?? NAMES[name] ?? name;

/**
 * It counts only if it answers every purpose of the site and has not run out; a purpose made of several
 * of theirs is granted only if all are.
 */
export function translated(config: Config, found: Found, now: number): Earlier | null {
  const { answers, isComplete, at } = found;
  const theirPurpose = (name: string): string => purposeOf(config, name);
  const asked = config.purposes.filter(({ required }) => !required).map(({ id }) => id);
  const pairs = asked.map((id) => {
    const theirs = Object.keys(answers).filter((name) => theirPurpose(name) === id);
    return [id, theirs.every((name) => answers[name]) && theirs.length > 0] as const;
  });
  const names = new Set(Object.keys(answers).map(theirPurpose));
  if (!isComplete && !asked.every((id) => names.has(id))) return null;
  const decidedAt = at !== undefined && Number.isFinite(at) ? at : now;
  if (!isInTime(config.expiry_days, { decidedAt }, now)) return null;
  return { choices: Object.fromEntries(pairs), at: decidedAt };
}

/** What the service inlines behind the bundle, and the words both sides share. */
import type { Texts } from "./texts";

/** What may run before a choice; `notice`: everything may, and the law only wants people told. */
export type Mode = "opt_in" | "opt_out" | "notice";

export const METHODS = [
  "accept_all",
  "reject_all",
  "custom",
  "gpc",
  "withdrawal",
  "dismissed",
  "migrated",
  "api",
] as const;
export type Method = (typeof METHODS)[number];

export interface Purpose {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly required: boolean;
  /** Granted without a choice; heeded only where the regime is opt-out. */
  readonly default: boolean;
  /** Counts as sale, sharing or targeted advertising: what the GPC signal says no to. */
  readonly denied_by_gpc: boolean;
  readonly sensitive?: boolean;
}

/** What a purpose brings along: see `Tracker` in the service's app/sites/config.py. */
export interface Tracker {
  readonly kind: "host" | "cookie" | "storage";
  readonly pattern: string;
  readonly purpose: string;
  readonly http_only: boolean;
}

/** A script that the widget puts into the page itself once its purpose is granted. */
export interface Tag {
  readonly src: string;
  readonly purpose: string;
  readonly load: "ordered" | "async" | "module";
}

export interface Theme {
  readonly position: "bottom" | "center";
  /** Custom properties from the site's design tokens: see app/sites/theme.py of the service. */
  readonly sheet: string;
}

/** Laws that ask first, for visitors of a region whose law does not: see `underZone`. */
export interface Strict {
  /** The beginning of a time zone's name and its law; the first that fits counts. */
  readonly zones: readonly (readonly [zone: string, regime: string])[];
  /** Those of the laws that have the signal respected. */
  readonly honours_gpc: readonly string[];
  /** The sentences that are others under them. */
  readonly texts: Partial<Texts>;
}

export interface Config {
  readonly site_key: string;
  readonly notice_version: string | number;
  /** Choices made under the same value still answer, whatever else of the notice has changed. */
  readonly material: string;
  /** Earlier notice version -> names of what is new or altered since: purposes, who asks. */
  readonly news?: Readonly<Record<string, readonly string[]>>;
  readonly regime: string;
  readonly mode: Mode;
  /** False where this regime needs no banner: notice by link only. */
  readonly shown?: boolean;
  /** The law has the signal respected; where it does not, the signal changes nothing. */
  readonly honours_gpc?: boolean;
  readonly language: string;
  readonly direction: "ltr" | "rtl";
  readonly expiry_days: number;
  /** The law: whoever refused is not asked again for so long. */
  readonly reask_after_days?: number;
  readonly purposes: readonly Purpose[];
  /** The site's own label, such as a vendor's consent type or integration -> purpose. */
  readonly mapping?: Readonly<Record<string, string>>;
  readonly trackers?: readonly Tracker[];
  readonly tags?: readonly Tag[];
  readonly texts: Texts;
  readonly theme: Theme;
  readonly policy_url?: string;
  /** Origin of the service, without a slash at the end. */
  readonly api: string;
  /** Address of the preference dialog's file. */
  readonly dialog: string;
  /** Where the site's own host serves this service; it can set a cookie that lasts. */
  readonly first_party?: string;
  /** The service saw `Sec-GPC: 1` when it served this configuration. */
  readonly gpc: boolean;
  /** The form for requests. */
  readonly privacy_url: string;
  readonly region: string | null;
  readonly strict?: Strict;
  /** `regime` is the time zone's law, not the region's. */
  readonly tightened?: boolean;
}

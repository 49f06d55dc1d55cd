/** Quittance's consent widget as a page sees it: `window.quittance`, and `load`, which puts it there. */

/** Purpose -> is it granted? */
export type Choices = Readonly<Record<string, boolean>>;

/** What may run before a choice; `notice`: everything may, and the law only wants people told. */
export type Mode = "opt_in" | "opt_out" | "notice";

/** How a choice came about. */
export type Method =
  | "accept_all"
  | "reject_all"
  | "custom"
  | "gpc"
  | "withdrawal"
  | "dismissed"
  | "migrated"
  | "api";

export interface Change {
  readonly choices: Choices;
  readonly method: Method;
  /** A script of a purpose that was withdrawn has run: only a reload ends it. */
  readonly reloadAdvised: boolean;
  /** Made in another tab or on another device, whose page has told already. */
  readonly isElsewhere: boolean;
}

/** Names of cookies and of keys in web storage. */
export interface Swept {
  readonly cleared: readonly string[];
  /** Still there afterwards: set by another host or for another path. */
  readonly left: readonly string[];
}

export interface Events {
  change: Change;
  /** The service has stored the choice as proof. */
  recorded: { readonly consentId: string };
  swept: Swept;
  /** `visible` has changed, or whether that is a question or only a notice. */
  display: { readonly visible: boolean };
}

/** analytics-next, as the package or as the snippet. */
export interface SegmentAnalytics {
  load(...rest: never[]): unknown;
  addSourceMiddleware(...rest: never[]): unknown;
  addDestinationMiddleware(...rest: never[]): unknown;
  track(...rest: never[]): unknown;
  page(...rest: never[]): unknown;
  identify(...rest: never[]): unknown;
  register(...rest: never[]): unknown;
}

export interface Quittance {
  /** Resolves with the choices once the stored ones are read and applied. */
  readonly ready: Promise<Choices>;
  /** Resolves with the choices once somebody has answered, or at once where nobody is asked. */
  readonly settled: Promise<Choices>;
  /** The record's id, once the service has answered. */
  readonly consentId: string | null;
  /** Whether a decision is stored: made here, by the GPC signal, or elsewhere before. */
  readonly decided: boolean;
  /** Banner or dialog is in view; headless: the page's own banner is called for. */
  readonly visible: boolean;
  readonly mode: Mode;
  /** The law, such as `gdpr`. */
  readonly regime: string;
  /** Every purpose of the site, required ones included. */
  choices(): Choices;
  has(purpose: string): boolean;
  /** The preference dialog. */
  open(): Promise<void>;
  accept(): void;
  reject(): void;
  /** These purposes, the others as they are; recorded as what the visitor said. */
  set(changes: Choices): void;
  /** Denies all optional purposes; recorded as a withdrawal. */
  withdraw(): void;
  /** What closing the banner does: an answer where people are only told, elsewhere none. */
  dismiss(): void;
  /** Removes what denied purposes left in the browser, now. */
  sweep(): Swept;
  /** Says who is signed in, by your own server's token; true once linked. */
  identify(token: string): Promise<boolean>;
  /** Returns the way to stop listening. */
  on<E extends keyof Events>(event: E, listener: (detail: Events[E]) => void): () => void;
  /** With the site's module `segment`: Segment's SDK by consent. */
  withConsent?<T extends SegmentAnalytics>(analytics: T): T;
}

export interface LoadOptions {
  /** Address of your Quittance, such as `https://privacy.shop.example`; it may have a path. */
  readonly service: string;
  readonly siteKey: string;
  /** Of the page's Content-Security-Policy. */
  readonly nonce?: string | undefined;
  /** Instead of the browser's, such as `de`. */
  readonly language?: string | undefined;
  /** The visitor's, where your server knows it, such as `DE` or `US-CA`. */
  readonly region?: string | undefined;
  /** The page shows a banner of its own: see `visible`. */
  readonly headless?: boolean | undefined;
}

/**
 * Puts the site's script into the page and resolves with `window.quittance`. A page has one: another
 * call gets the same. Rejects where the script cannot be loaded; the next call then tries again.
 */
export function load(options: LoadOptions): Promise<Quittance>;

declare global {
  interface Window {
    /** Absent until the script has run. */
    readonly quittance?: Quittance;
  }
  interface DocumentEventMap {
    "quittance:change": CustomEvent<Change>;
  }
}

/**
 * What we use of analytics-next, as the npm package and as the snippet. Source: the package's own
 * types at 1.84.3, which are not imported so that nobody needs the package to build this.
 */
import { ITSELF } from "./rules";

export interface CdnSettings {
  readonly integrations: Readonly<Record<string, Integration>>;
  readonly remotePlugins?: readonly { readonly creationName: string; readonly name: string }[];
}

interface Integration {
  readonly consentSettings?: { readonly categories?: readonly string[] };
}

export interface LoadOptions {
  readonly integrations?: Readonly<Record<string, unknown>>;
  readonly initialPageview?: boolean;
  readonly updateCDNSettings?: (settings: CdnSettings) => CdnSettings;
  readonly globalAnalyticsKey?: string;
  readonly useQueryString?: boolean;
}

export interface LoadSettings {
  readonly writeKey: string;
  readonly plugins?: readonly unknown[] | undefined;
}

export interface Plugin {
  readonly name: string;
  readonly type: string;
  addMiddleware?(...middleware: readonly unknown[]): void;
}

export interface Event {
  context?: Record<string, unknown> & { consent?: Record<string, unknown> };
  integrations?: Record<string, unknown>;
}

export type SourceMiddleware = (step: {
  readonly payload: { readonly obj: Event };
  readonly next: (payload: { readonly obj: Event }) => void;
}) => unknown;

export interface Loaded {
  readonly queue: { readonly plugins: readonly Plugin[] };
  register(...plugins: readonly Plugin[]): unknown;
}

export interface Analytics {
  initialized?: boolean;
  /** Where the snippet has the SDK come from, if not from Segment. */
  _cdn?: string | undefined;
  load(settings: LoadSettings | string, options?: LoadOptions): unknown;
  addSourceMiddleware(middleware: SourceMiddleware): unknown;
  addDestinationMiddleware(destination: string, ...middleware: readonly unknown[]): unknown;
  track(event: string): unknown;
  page(): unknown;
  identify(traits: Readonly<Record<string, unknown>>): unknown;
  register(...plugins: readonly Plugin[]): unknown;
}

/** The snippet is an array until the SDK has come, and then another object under the same name. */
export function current(analytics: Analytics, { globalAnalyticsKey }: LoadOptions): Analytics {
  const name = (globalAnalyticsKey ?? "analytics") as keyof Window;
  const loaded = window[name] as Analytics | undefined;
  return Array.isArray(analytics) && loaded?.initialized ? loaded : analytics;
}

const NAME = "quittanceSegment";

/**
 * The SDK a second time, for destinations granted after the first load: it builds only those, sends
 * nothing itself, and lends its plugins to the first. The SDK has no other public way to build one.
 */
export async function second(
  analytics: Analytics,
  settings: LoadSettings | string,
  options: LoadOptions,
  script: HTMLScriptElement | undefined,
): Promise<Loaded> {
  const reduced: LoadOptions = {
    ...options,
    // Else it would take over what the first has stored to send again.
    integrations: { ...options.integrations, [ITSELF]: false },
    useQueryString: false, // `ajs_event` in the address is one event
  };
  if (typeof settings === "object") return ofPackage(analytics, settings, reduced);
  if (!script) throw new Error("the script of analytics.js is gone");
  // The copy looks for it where the snippet was.
  current(analytics, options)._cdn ??= analytics._cdn;
  return ofSnippet(script, settings, { ...reduced, globalAnalyticsKey: NAME });
}

async function ofPackage(
  analytics: Analytics,
  settings: LoadSettings,
  options: LoadOptions,
): Promise<Loaded> {
  const Browser = analytics.constructor as new () => Analytics;
  // Ready-made plugins run in the first already; the others are how to build one.
  const plugins = settings.plugins?.filter((plugin) => typeof plugin === "function");
  const [loaded] = (await new Browser().load({ ...settings, plugins }, options)) as [Loaded];
  return loaded;
}

/** The script looks its name up in the first such element of the page, so the copy stands before it. */
function ofSnippet(
  script: HTMLScriptElement,
  writeKey: string,
  options: LoadOptions,
): Promise<Loaded> {
  const copy = document.createElement("script");
  copy.src = script.src;
  copy.nonce = script.nonce;
  copy.setAttribute("data-global-segment-analytics-key", NAME);
  return new Promise<Loaded>((resolve, reject) => {
    Object.defineProperty(window, NAME, {
      configurable: true,
      get: () => ({ _writeKey: writeKey, _loadOptions: options }),
      set: resolve,
    });
    copy.onerror = reject;
    script.before(copy);
  }).finally(() => {
    copy.remove();
    Reflect.deleteProperty(window, NAME);
  });
}

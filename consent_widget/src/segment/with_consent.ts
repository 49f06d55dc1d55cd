/**
 * Consent for analytics-next in one call: nothing of Segment loads before something is granted, only
 * what is granted loads, and every later choice holds from the next event on, without a reload.
 */
import type { Config } from "../config";
import type { Quittance } from "../main";
import { ITSELF, type Rules, rulesOf } from "./rules";
import {
  type Analytics,
  type CdnSettings,
  current,
  type LoadOptions,
  type LoadSettings,
  second,
} from "./sdk";

/** How consent is spoken of to Segment. */
export interface Terms {
  readonly rules: Rules;
  /** What every event carries in `context.consent`. */
  stamp(): Readonly<Record<string, unknown>>;
  /** Somebody has chosen, here and now, and Segment may know. */
  tell(sdk: Analytics): void;
}

const categoriesOf = (cdn: CdnSettings | null, name: string): readonly string[] | undefined =>
  cdn?.integrations[name]?.consentSettings?.categories;

/** Every destination named there, under the name that consent is asked for. */
const namesIn = ({ integrations, remotePlugins = [] }: CdnSettings): Set<string> =>
  new Set([
    ...Object.keys(integrations).filter((name) => name !== ITSELF),
    ...remotePlugins.map(({ creationName }) => creationName),
  ]);

/** The settings with Segment itself and these destinations alone. */
function only(cdn: CdnSettings, isIn: (name: string) => boolean): CdnSettings {
  return {
    ...cdn,
    integrations: Object.fromEntries(
      Object.entries(cdn.integrations).filter(([name]) => name === ITSELF || isIn(name)),
    ),
    remotePlugins: (cdn.remotePlugins ?? []).filter(({ creationName }) => isIn(creationName)),
  };
}

/** The page's way to it is `quittance.withConsent`. */
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

const wrapped = new WeakSet<object>();

/** `start`: resolves when what holds may be acted upon. */
export function wrap<T extends Analytics>(
  analytics: T,
  quittance: Quittance,
  start: Promise<unknown>,
  { rules, stamp, tell }: Terms,
): T {
  if (wrapped.has(analytics)) return analytics;
  wrapped.add(analytics);

  const load = analytics.load.bind(analytics);
  const addMiddleware = analytics.addDestinationMiddleware.bind(analytics);
  const middleware: [name: string, ...rest: unknown[]][] = [];
  let settings: LoadSettings | string = "";
  let options: LoadOptions = {};
  let script: HTMLScriptElement | undefined;
  let cdn: CdnSettings | null = null;
  const withheld = new Set<string>();
  let isLoading = false;

  const allows = (name: string): boolean => rules.allows(name, categoriesOf(cdn, name));
  const sdk = (): Analytics => current(analytics, options);

  analytics.addDestinationMiddleware = (...rule) => {
    middleware.push(rule);
    return addMiddleware(...rule);
  };
  analytics.addSourceMiddleware(({ payload, next }) => {
    if (!rules.allowsAny()) return null;
    const { obj } = payload;
    obj.context = { ...obj.context, consent: { ...obj.context?.consent, ...stamp() } };
    obj.integrations = { ...obj.integrations, ...denied() };
    next(payload);
    return undefined;
  });
  analytics.load = (given, more = {}) => {
    settings = given;
    options = more;
    // The page's context is read now, not when somebody has answered.
    if (more.initialPageview) {
      analytics.page();
      options = { ...more, initialPageview: false };
    }
    void start.then(() => {
      begin();
      quittance.on("change", begin);
    });
    return analytics;
  };
  quittance.on("change", ({ isElsewhere }) => {
    if (!isElsewhere && rules.allowsAny()) tell(sdk());
  });
  return analytics;

  function begin(): void {
    if (isLoading) void addGranted();
    else if (rules.allowsAny()) {
      isLoading = true;
      const scripts = new Set(document.scripts);
      load(settings, { ...options, updateCDNSettings: withhold });
      script = [...document.scripts].find((each) => !scripts.has(each));
    }
  }

  function withhold(served: CdnSettings): CdnSettings {
    cdn = options.updateCDNSettings?.(served) ?? served;
    for (const name of namesIn(cdn)) if (!allows(name)) withheld.add(name);
    return only(cdn, (name) => !withheld.has(name));
  }

  /** Segment's servers heed this too, for the destinations they feed themselves. */
  function denied(): Record<string, false> {
    const known = new Set([...rules.catalogue, ...(cdn ? namesIn(cdn) : [])]);
    return Object.fromEntries(
      [...known].filter((name) => !allows(name)).map((name) => [name, false]),
    );
  }

  async function addGranted(): Promise<void> {
    const names = new Set([...withheld].filter(allows));
    if (!cdn || names.size === 0) return;
    for (const name of names) withheld.delete(name);
    const granted = only(cdn, (name) => names.has(name));
    try {
      const { queue } = await second(
        analytics,
        settings,
        { ...options, updateCDNSettings: () => granted },
        script,
      );
      const plugins = queue.plugins.filter(({ name }) => names.has(name));
      for (const plugin of plugins)
        for (const [name, ...rest] of middleware)
          if (name === "*" || name.toLowerCase() === plugin.name.toLowerCase())
            plugin.addMiddleware?.(...rest);
      await sdk().register(...plugins);
    } catch (error) {
      console.error("quittance: destinations granted now load with the next page", error);
    }
  }
}

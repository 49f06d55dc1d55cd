/**
 * In place of `@segment/consent-manager` 5.8.1: reads the page's `consentManagerConfig`, keeps its cookie
 * and its global, and loads the snippet's analytics.js as it did. Banner and texts are the site's own,
 * because those are what the record proves.
 */
import type { Config } from "../config";
import { booleans, purposeOf, translated } from "../earlier";
import type { Earlier, Quittance } from "../main";
import { hasGpc } from "../signals";
import { type Answers, type CookieOptions, type Preferences, read, write } from "./preferences";
import { type Has, ITSELF, type Rules, rulesOf } from "./rules";
import type { Analytics } from "./sdk";
import { wrap } from "./with_consent";

interface Options extends CookieOptions {
  readonly writeKey: string;
  readonly shouldRequireConsent?: () => boolean | Promise<boolean>;
  readonly customCategories?: Readonly<
    Record<string, { readonly integrations: readonly string[] }>
  >;
  readonly defaultDestinationBehavior?: "disable" | "enable" | "imply" | "ask";
  readonly onError?: (error: unknown) => void;
}

type Listener = (preferences: Preferences) => void;

/** What the page asked for, and who on it wants to hear of choices. */
interface DropIn {
  readonly options: Options;
  readonly listeners: Set<Listener>;
}

interface Page {
  consentManagerConfig?: unknown;
  consentManager?: unknown;
  quittance?: Quittance;
  analytics?: Analytics;
}
const page = window as unknown as Page;

/** The contract that is kept, for pages that ask. */
const VERSION = "5.8.1";

const report = (error: unknown): void => console.error("quittance:", error);

const dropIns = new WeakMap<Config, DropIn | null>();

/** The page's function is called once for a configuration, whoever needs its answer first. */
function dropInOf(config: Config): DropIn | null {
  if (!dropIns.has(config)) dropIns.set(config, asked(config));
  return dropIns.get(config) ?? null;
}

function asked(config: Config): DropIn | null {
  const { consentManagerConfig } = page;
  if (consentManagerConfig === undefined) return null;
  try {
    if (typeof consentManagerConfig !== "function")
      throw new Error("consentManagerConfig should be a function");
    const listeners = new Set<Listener>();
    const offered = globalOf(config, listeners);
    const options = consentManagerConfig({
      ...offered,
      inRegions: regionsOf(config),
      React: { createElement: () => null }, // for content that is made and never shown
    });
    if (!options?.writeKey) throw new Error("consentManagerConfig returned no writeKey");
    page.consentManager = offered;
    return { options, listeners };
  } catch (error) {
    report(error);
    return null;
  }
}

const globalOf = (config: Config, listeners: Set<Listener>): object => ({
  version: VERSION,
  openConsentManager: () => void page.quittance?.open(),
  doNotTrack,
  inEU: regionsOf(config)(["EU"]),
  preferences: {
    loadPreferences: (name?: string) => read(name ?? dropIns.get(config)?.options.cookieName),
    savePreferences: (preferences: Preferences) =>
      page.quittance?.set(choicesOf(config, preferences)),
    onPreferencesSaved(listener: Listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  },
});

function doNotTrack(): boolean | null {
  const { doNotTrack } = navigator;
  return doNotTrack === "1" || (doNotTrack === "0" ? false : null);
}

/** `EU` or a state, as the service saw it and not as the clock's zone has one guess; unknown is in. */
const regionsOf =
  ({ region, regime }: Config) =>
  (regions: readonly string[]) =>
  (): boolean =>
    regions.some((each) =>
      each === "EU" ? regime.endsWith("gdpr") : [null, "US", `US-${each}`].includes(region),
    );

/** A purpose made of several of theirs is granted only if all are. */
function choicesOf(config: Config, preferences: Preferences): Answers {
  const answers = { ...preferences.destinationPreferences, ...preferences.customPreferences };
  const choices: Record<string, boolean> = {};
  for (const [name, answer] of Object.entries(answers)) {
    const purpose = purposeOf(config, name);
    choices[purpose] = answer === true && choices[purpose] !== false;
  }
  return choices;
}

export function earlierOf(config: Config, now: number): Earlier | null {
  const dropIn = dropInOf(config);
  if (!dropIn) return null;
  const { destinationPreferences, customPreferences } = read(dropIn.options.cookieName);
  const answers = booleans({ ...destinationPreferences, ...customPreferences });
  return translated(config, { answers }, now);
}

const CATEGORIES = ["marketingAndAnalytics", "advertising", "functional"];

const categoriesOf = ({ customCategories }: Options): readonly string[] =>
  customCategories ? Object.keys(customCategories) : CATEGORIES;

interface Terms extends Rules {
  preferences(): Required<Preferences>;
}

/** A destination in several categories is on only if none of them is off. */
function termsOf(config: Config, options: Options, has: Has): Terms {
  const categories = categoriesOf(options);
  const custom = Object.entries(options.customCategories ?? {});
  const rules = rulesOf(config, has);
  const mapped = rules.catalogue.filter((name) => !categories.includes(name));
  const catalogue = [
    ...new Set([...mapped, ...custom.flatMap(([, { integrations }]) => integrations)]),
  ];
  const isOn = (category: string): boolean => has(purposeOf(config, category));
  function allows(name: string): boolean {
    const within = custom.filter(([, { integrations }]) => integrations.includes(name));
    if (within.length > 0) return within.every(([category]) => isOn(category));
    return catalogue.includes(name)
      ? rules.allows(name)
      : options.defaultDestinationBehavior === "enable";
  }
  const preferences = (): Required<Preferences> => ({
    destinationPreferences: Object.fromEntries(catalogue.map((name) => [name, allows(name)])),
    customPreferences: Object.fromEntries(categories.map((name) => [name, isOn(name)])),
  });
  return { catalogue, allows, allowsAny: () => catalogue.some(allows), preferences };
}

export function connect(quittance: Quittance, config: Config): void {
  const dropIn = dropInOf(config);
  if (!dropIn) return;
  start(quittance, config, dropIn).catch(dropIn.options.onError ?? report);
}

async function start(quittance: Quittance, config: Config, dropIn: DropIn): Promise<void> {
  const { options, listeners } = dropIn;
  const { defaultDestinationBehavior } = options;
  let isRequired = true;
  const signal = hasGpc(config, navigator);
  const isFree = (purpose: string): boolean =>
    !isRequired &&
    !quittance.decided &&
    !(signal && config.purposes.some(({ id, denied_by_gpc }) => id === purpose && denied_by_gpc));
  const terms = termsOf(config, options, (purpose) => quittance.has(purpose) || isFree(purpose));
  const integrations: Record<string, boolean> = {
    All: defaultDestinationBehavior === "enable",
    [ITSELF]: true,
  };

  // The SDK reads this object at every event.
  const update = (): void =>
    void Object.assign(integrations, terms.preferences().destinationPreferences);
  if (quittance.decided) write(terms.preferences(), options);
  quittance.on("change", () => {
    update();
    const preferences = terms.preferences();
    write(preferences, options);
    for (const listener of listeners) listener(preferences);
  });

  isRequired = (await options.shouldRequireConsent?.()) ?? true;
  update();
  const analytics = await snippet();
  const isAsked = isRequired && quittance.mode === "opt_in";
  wrap(analytics, quittance, isAsked ? quittance.settled : quittance.ready, {
    rules: terms,
    stamp() {
      const { customPreferences: categoryPreferences, destinationPreferences } =
        terms.preferences();
      return { defaultDestinationBehavior, categoryPreferences, destinationPreferences };
    },
    tell(sdk) {
      const { customPreferences, destinationPreferences } = terms.preferences();
      sdk.identify({
        destinationTrackingPreferences: destinationPreferences,
        customTrackingPreferences: customPreferences,
      });
    },
  });
  analytics.load(options.writeKey, { integrations });
}

/** Segment's snippet may stand behind ours in the page. */
async function snippet(): Promise<Analytics> {
  if (!page.analytics && document.readyState === "loading")
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));
  const { analytics } = page;
  if (!analytics) throw new Error("window.analytics is missing");
  if (analytics.initialized) throw new Error("analytics.js is loaded already");
  return analytics;
}

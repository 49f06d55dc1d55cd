import { AnalyticsBrowser } from "@segment/analytics-next";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Config } from "../src/config";
import * as dialog from "../src/dialog";
import { type Quittance, start } from "../src/main";
import * as segment from "../src/modules/segment";
import { read, write } from "../src/segment/preferences";
import { rulesOf } from "../src/segment/rules";
import type { Analytics } from "../src/segment/sdk";
import { encode } from "../src/storage";
import { decision, site, usSite } from "./fixtures";

interface Page {
  consentManagerConfig?: unknown;
  consentManager?: { preferences: { loadPreferences(): unknown } } | undefined;
  analytics?: unknown;
}
const page = window as unknown as Page;
type Wrapping = Quittance & { withConsent<T>(analytics: T): T };

const UPDATED = "Segment Consent Preference Updated";
const mapping = { Amplitude: "analytics", Pixel: "advertising", ad_storage: "advertising" };
const settled = (ms = 20) => new Promise((resolve) => setTimeout(resolve, ms));
let quittance: Wrapping;

function visit(config: Config): void {
  Reflect.deleteProperty(window, "quittance");
  quittance = start(config, [segment], async () => dialog) as Wrapping;
}

const expire = (name: string) => {
  for (const domain of ["", "; Domain=shop.example"])
    document.cookie = `${name}=; Path=/; Max-Age=0${domain}`;
};

beforeEach(() => {
  localStorage.clear();
  for (const name of ["qt_shop", "tracking-preferences", "mine"]) expire(name);
  document.body.replaceChildren();
  delete page.consentManagerConfig;
  delete page.consentManager;
  delete page.analytics;
  vi.stubGlobal("fetch", vi.fn().mockRejectedValue(new TypeError("offline")));
});
afterEach(() => vi.unstubAllGlobals());

describe("who may receive what", () => {
  const rules = (granted: readonly string[], labels: Record<string, string> = mapping) =>
    rulesOf(site({ mapping: labels }), (purpose) => granted.includes(purpose));

  it.each([
    ["Amplitude", undefined, ["analytics"], true],
    ["Amplitude", undefined, ["advertising"], false],
    // Segment's own category counts only where the site says nothing of the destination.
    ["Amplitude", ["advertising"], ["analytics"], true],
    ["Mail", ["advertising"], ["advertising"], true],
    ["Mail", ["advertising", "analytics"], ["advertising"], false],
    ["Mail", ["C4"], ["advertising"], true],
    ["Mail", [], ["functional", "analytics"], false],
    ["Mail", undefined, ["functional", "analytics", "advertising"], true],
  ])("%s in %s with %s granted: %s", (name, categories, granted, isAllowed) => {
    const found = rules(granted, { ...mapping, C4: "advertising" });
    expect(found.allows(name, categories)).toBe(isAllowed);
  });

  it("takes other modules' labels for no destinations", () => {
    const labels = { ...mapping, uet: "advertising", "Segment.io": "analytics" };
    expect(rules([], labels).catalogue).toEqual(["Amplitude", "Pixel"]);
  });

  it.each([
    [mapping, [], false],
    [mapping, ["functional"], false],
    [mapping, ["advertising"], true],
    [{ ...mapping, "Segment.io": "analytics" }, ["advertising"], false],
    [{ ...mapping, "Segment.io": "analytics" }, ["analytics"], true],
    [{}, ["functional"], true],
  ])("with %o and %s granted, Segment itself loads: %s", (labels, granted, isAllowed) => {
    expect(rules(granted, labels as Record<string, string>).allowsAny()).toBe(isAllowed);
  });
});

describe("the cookie of consent-manager", () => {
  const preferences = {
    destinationPreferences: { "Pixel (Actions)": true, "Größe; 5%": false },
    customPreferences: { advertising: true },
  };

  it("is written as js-cookie does, and read back", () => {
    const written = vi.spyOn(Document.prototype, "cookie", "set");
    const at = Date.now();
    write(preferences, {
      cookieName: "mine",
      cookieExpires: 2,
      cookieAttributes: { sameSite: "Lax", secure: true, nothing: false },
    });
    const [line = ""] = written.mock.lastCall ?? [];
    const [pair = "", ...attributes] = line.split("; ");
    expect(pair).toBe(
      "mine={%22version%22:1%2C%22destinations%22:{%22Pixel%20(Actions)%22:true%2C%22Gr%C3%B6%C3%9Fe%3B%205%25%22:false}%2C%22custom%22:{%22advertising%22:true}}",
    );
    expect(attributes).toContain("sameSite=Lax");
    expect(attributes).toContain("secure");
    expect(attributes).toContain("domain=shop.example");
    expect(attributes.join()).not.toContain("nothing");
    const until = Date.parse(
      attributes.find((each) => each.startsWith("expires="))?.slice(8) ?? "",
    );
    expect(Math.round((until - at) / 86_400_000)).toBe(2);
    expect(read("mine")).toEqual(preferences);
  });

  it.each(["{", "null", "5", ""])("%s says nothing", (value) => {
    document.cookie = `tracking-preferences=${value}; Path=/`;
    expect(Object.values(read()).filter(Boolean)).toEqual([]);
  });
});

describe("withConsent", () => {
  /** The real SDK, with destinations that note what they get. */
  function sdk() {
    const got: [string, string][] = [];
    const factory = (name: string) =>
      Object.assign(
        () => ({
          name,
          type: "destination" as const,
          version: "1",
          isLoaded: () => true,
          load: async () => {},
          track: async <T extends { event: { event?: string } }>(it: T) => {
            got.push([name, String(it.event.event)]);
            return it;
          },
        }),
        { pluginName: name },
      );
    const names = ["Amplitude", "Pixel"];
    const analytics = new AnalyticsBrowser();
    const load = () =>
      analytics.load({
        writeKey: "key1",
        plugins: names.map(factory) as never[],
        cdnSettings: {
          integrations: { "Segment.io": {} },
          metrics: { sampleRate: 0 },
          remotePlugins: names.map((name) => ({
            name,
            creationName: name,
            url: "",
            libraryName: name,
            settings: {},
          })),
        } as never,
      });
    return { analytics, load, got };
  }

  it("is one with itself when called twice", async () => {
    visit(site({ mapping }));
    const { analytics, load, got } = sdk();
    expect(quittance.withConsent(quittance.withConsent(analytics))).toBe(analytics);
    load();
    quittance.set({ analytics: true });
    await vi.waitFor(() => expect(got).toEqual([["Amplitude", UPDATED]]));
  });

  it("gives a destination granted later the rules that the page made for it", async () => {
    visit(site({ mapping }));
    const { analytics, load, got } = sdk();
    quittance.withConsent(analytics);
    load();
    const seen: string[] = [];
    void analytics.addDestinationMiddleware("PiXeL", ({ payload, next, integration }) => {
      seen.push(integration);
      next(payload);
    });
    quittance.set({ analytics: true });
    await analytics;
    await settled(); // the SDK takes its queue up in a later task
    quittance.set({ advertising: true });
    await settled();
    await analytics.track("Bought");
    expect(got).toContainEqual(["Pixel", "Bought"]);
    expect(seen).toContain("Pixel");
  });

  it.each([
    ["the signal", usSite({ mapping, gpc: true }), () => {}],
    [
      "another tab",
      usSite({ mapping }),
      () => {
        const newer = decision({ mode: "opt_out", decidedAt: Date.now() + 1000 });
        localStorage.setItem("qt_shop", encode(newer));
        window.dispatchEvent(new StorageEvent("storage", { key: "qt_shop" }));
      },
    ],
  ])("says nothing of a choice made by %s", async (_, config, act) => {
    visit(config);
    const { analytics, load, got } = sdk();
    quittance.withConsent(analytics);
    load();
    act();
    await analytics;
    await settled(450);
    expect(quittance.decided).toBe(true);
    await analytics.track("Bought");
    expect(got).toEqual([["Amplitude", "Bought"]]);
  });
});

describe("a page made for consent-manager", () => {
  const complaints = () => vi.spyOn(console, "error").mockImplementation(() => {});

  it.each([
    [{ writeKey: "key1" }, "consentManagerConfig should be a function"],
    [() => ({}), "consentManagerConfig returned no writeKey"],
  ])("is told when its configuration is none", (given, text) => {
    const said = complaints();
    page.consentManagerConfig = given;
    visit(site({ mapping }));
    expect(String(said.mock.calls[0]?.[1])).toContain(text);
    expect(page.consentManager).toBeUndefined();
    expect(document.querySelector("quittance-banner")).not.toBeNull();
  });

  it.each([
    ["window.analytics is missing", undefined],
    ["analytics.js is loaded already", { initialized: true }],
  ])("hears through onError that %s", async (text, analytics) => {
    const onError = vi.fn();
    page.analytics = analytics;
    page.consentManagerConfig = () => ({ writeKey: "key1", onError });
    visit(site({ mapping }));
    await settled();
    expect(String(onError.mock.calls[0]?.[0])).toContain(text);
  });

  const stub = () => {
    const calls: unknown[][] = [];
    const note =
      (method: string) =>
      (...rest: unknown[]) =>
        calls.push([method, ...rest]);
    const analytics = Object.fromEntries(
      ["load", "addSourceMiddleware", "addDestinationMiddleware", "track", "page", "identify"].map(
        (method) => [method, note(method)],
      ),
    ) as unknown as Analytics;
    return { analytics, loads: () => calls.filter(([method]) => method === "load") };
  };

  it.each([
    [true, []],
    [false, [{ All: false, "Segment.io": true, Amplitude: true, Pixel: true }]],
  ])("that requires consent: %s, loads unasked %o", async (isRequired, expected) => {
    const { analytics, loads } = stub();
    page.analytics = analytics;
    page.consentManagerConfig = () => ({
      writeKey: "key1",
      shouldRequireConsent: () => isRequired,
    });
    visit(site({ mapping }));
    await settled();
    const given = loads().map(
      ([, , options]) => (options as { integrations: object }).integrations,
    );
    expect(given).toEqual(expected);
  });

  it.each([
    ["signal", { gpc: true }, () => {}],
    [
      "refusal",
      {},
      () => localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() - 1000 }))),
    ],
  ])("does not overrule a %s where it asks for no consent", async (_, changes, before) => {
    const { analytics, loads } = stub();
    page.analytics = analytics;
    page.consentManagerConfig = () => ({ writeKey: "key1", shouldRequireConsent: () => false });
    before();
    visit(site({ mapping, ...changes }));
    await settled();
    const [, , options] = loads()[0] ?? [];
    expect(options).toMatchObject({ integrations: { Amplitude: true, Pixel: false } });
  });

  it.each([
    ["gdpr", "DE", ["EU"], true],
    ["gdpr", "DE", ["CA"], false],
    ["uk_gdpr", "GB", ["EU"], true],
    ["ccpa", "US-CA", ["CA", "EU"], true],
    ["ccpa", "US-CA", ["EU"], false],
    ["ccpa", "US-CA", ["NY"], false],
    ["gdpr", null, ["CA"], true],
  ])("under %s in %s is told of %s: %s", (regime, region, regions, isIn) => {
    const config = vi.fn(() => ({ writeKey: "key1", onError: () => {} }));
    page.consentManagerConfig = config;
    visit(site({ regime, region }));
    const [[offered]] = config.mock.calls as unknown as [
      [{ inRegions(regions: string[]): () => boolean }],
    ];
    expect(offered.inRegions(regions)()).toBe(isIn);
    expect(config).toHaveBeenCalledOnce();
  });
});

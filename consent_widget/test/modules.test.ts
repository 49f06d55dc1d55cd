import { GppModel } from "@iabgpp/cmpapi";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Config } from "../src/config";
import * as dialog from "../src/dialog";
import { type Module, type Quittance, start } from "../src/main";
import * as consentMode from "../src/modules/consent_mode";
import * as gpp from "../src/modules/gpp";
import * as uet from "../src/modules/uet";
import type { Decision } from "../src/state";
import { encode } from "../src/storage";
import { decision, site, usSite } from "./fixtures";

interface Page {
  dataLayer?: ArrayLike<unknown>[] | undefined;
  uetq?: unknown[] | undefined;
  __gpp?: ((...call: unknown[]) => void) | undefined;
}
const page = window as Page;
let quittance: Quittance;

function visit(config: Config, module: Module): void {
  Reflect.deleteProperty(window, "quittance");
  quittance = start(config, [module], async () => dialog);
}

const stored = (changes: Partial<Decision> = {}) =>
  localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() - 1000, ...changes })));

beforeEach(() => {
  localStorage.clear();
  document.cookie = "qt_shop=; Path=/; Max-Age=0; Secure";
  document.body.replaceChildren();
  delete page.dataLayer;
  delete page.uetq;
  delete page.__gpp;
  vi.stubGlobal("fetch", vi.fn().mockRejectedValue(new TypeError("offline")));
  HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
    this.open = true;
  };
  HTMLDialogElement.prototype.close ??= function (this: HTMLDialogElement) {
    this.open = false;
    this.dispatchEvent(new Event("close"));
  };
});
afterEach(() => vi.unstubAllGlobals());

describe("Google Consent Mode", () => {
  const commands = () => (page.dataLayer ?? []).map((entry) => [...Array.from(entry)]);
  const denied = {
    ad_storage: "denied",
    ad_user_data: "denied",
    ad_personalization: "denied",
    analytics_storage: "denied",
    functionality_storage: "denied",
    personalization_storage: "denied",
    security_storage: "granted",
  };

  it("sets the default where no stub has, as an arguments object with all seven types", () => {
    visit(site(), consentMode);
    expect(commands()).toEqual([["consent", "default", denied]]);
    expect(Object.prototype.toString.call(page.dataLayer?.[0])).toBe("[object Arguments]");
  });

  it("updates at a choice, and tells tag managers by an event", () => {
    visit(site(), consentMode);
    quittance.set({ analytics: true });
    expect(commands()[1]).toEqual([
      "consent",
      "update",
      { ...denied, analytics_storage: "granted" },
    ]);
    expect(page.dataLayer?.[2]).toMatchObject({
      event: "quittance_consent",
      quittance: { method: "custom", choices: { analytics: true } },
    });
  });

  it("leaves a stub's default alone, and updates only what is known", () => {
    page.dataLayer = [["consent", "default", denied]];
    visit(site(), consentMode);
    expect(commands()).toHaveLength(1);
    stored();
    visit(site(), consentMode);
    expect(commands()[1]).toEqual([
      "consent",
      "update",
      {
        ...denied,
        analytics_storage: "granted",
        functionality_storage: "granted",
        personalization_storage: "granted",
      },
    ]);
  });

  it.each([
    ["a stored choice that is no answer any more", { material: "m6" }],
    ["a whole region, where nobody has answered", null],
  ])("takes back what a stub granted because of %s", (_, earlier) => {
    const all = Object.fromEntries(Object.keys(denied).map((type) => [type, "granted"]));
    page.dataLayer = [
      ["consent", "default", earlier ? all : denied],
      ...(earlier ? [] : [["consent", "default", { ...all, region: ["DE"] }]]),
    ];
    if (earlier) stored(earlier);
    visit(site(), consentMode);
    expect(commands().at(-1)).toEqual(["consent", "update", denied]);
  });

  it("grants what runs by default under opt-out, less what the signal denies", () => {
    visit(usSite({ gpc: true }), consentMode);
    expect(commands()[0]?.[2]).toMatchObject({
      ad_storage: "denied",
      analytics_storage: "granted",
    });
  });

  it("follows the site's own purposes", () => {
    visit(site({ mapping: { ad_storage: "analytics" } }), consentMode);
    quittance.set({ analytics: true });
    expect(commands()[1]?.[2]).toMatchObject({ ad_storage: "granted", ad_user_data: "denied" });
  });
});

describe("Microsoft UET", () => {
  it("is told the default and every change, also after its script replaced the queue", () => {
    visit(site(), uet);
    expect(page.uetq).toEqual(["consent", "default", { ad_storage: "denied" }]);
    page.uetq = [];
    quittance.accept();
    expect(page.uetq).toEqual(["consent", "update", { ad_storage: "granted" }]);
  });
});

describe("the GPP string", () => {
  it.each([
    [1, "11"],
    [2, "011"],
    [3, "0011"],
    [4, "1011"],
    [7, "01011"],
    [8, "000011"],
    [19, "1001011"],
  ])("writes %i as %s", (value, bits) => expect(gpp.fibonacci(value)).toBe(bits));

  const choices = (advertising: boolean) => ({ necessary: true, analytics: true, advertising });
  const cases = ["usnat", "usca"].flatMap((name) =>
    [true, false].flatMap((sold) => [true, false].map((gpc) => [name, sold, gpc] as const)),
  );
  it.each(cases)(
    "%s, sold: %s, signal: %s is read by IAB's library as it was meant",
    (name, sold, gpc) => {
      const section = gpp.sectionOf(name as "usnat", usSite(), choices(sold), gpc);
      const text = gpp.gppString({ [name]: section });
      const model = new GppModel(text);
      expect(model.getSectionIds()).toEqual([name === "usnat" ? 7 : 8]);
      for (const [field, value] of Object.entries(section))
        expect([field, model.getFieldValue(name, field)]).toEqual([field, value]);
      expect(model.getFieldValue(name, "SaleOptOut")).toBe(sold ? 2 : 1);
    },
  );

  const sensitive = (...ids: string[]): Config => {
    const config = usSite();
    const purposes = config.purposes.map((each) => ({ ...each, sensitive: ids.includes(each.id) }));
    return { ...config, purposes };
  };
  it.each([
    ["nothing sensitive", [], 0, 0],
    ["a sensitive purpose that is granted", ["analytics"], 1, 2],
    ["one that is denied", ["functional"], 1, 1],
    ["one of each", ["analytics", "functional"], 1, 1],
  ] as const)("says of %s what may be done, kind by kind", (_, ids, limit, use) => {
    for (const [name, kinds] of [
      ["usnat", 16],
      ["usca", 9],
    ] as const) {
      const section = gpp.sectionOf(name, sensitive(...ids), choices(true), false);
      const model = new GppModel(gpp.gppString({ [name]: section }));
      expect(model.getFieldValue(name, "SensitiveDataLimitUseNotice")).toBe(limit);
      expect(model.getFieldValue(name, "SensitiveDataProcessing")).toEqual(Array(kinds).fill(use));
    }
  });

  it("without a section is the empty one", () => {
    expect(gpp.gppString({})).toBe(new GppModel().encode());
  });
});

describe("the GPP interface", () => {
  const heard: [string, unknown][] = [];
  const listen = () =>
    page.__gpp?.("addEventListener", ({ eventName, data }: { eventName: string; data: unknown }) =>
      heard.push([eventName, data]),
    );
  const ask = (...call: unknown[]): unknown => {
    let answer: unknown;
    page.__gpp?.(
      call[0],
      (data: unknown) => {
        answer = data;
      },
      ...call.slice(1),
    );
    return answer;
  };
  const later = () => new Promise((resolve) => setTimeout(resolve));
  beforeEach(() => heard.splice(0));

  it("takes over a stub and keeps the order of a first visit", () => {
    const callback = ({ eventName, data }: { eventName: string; data: unknown }) =>
      heard.push([eventName, data]);
    const queued = vi.fn();
    const stub = Object.assign(vi.fn(), {
      queue: [["ping", queued]],
      events: [{ id: 1, callback }],
      lastId: 1,
    });
    page.__gpp = stub;
    visit(usSite(), gpp);
    expect(queued.mock.calls[0]?.[0]).toMatchObject({
      cmpStatus: "loaded",
      signalStatus: "not ready",
      applicableSections: [8],
    });
    quittance.reject();
    expect(heard).toEqual([
      ["cmpStatus", "loaded"],
      ["cmpDisplayStatus", "visible"],
      ["cmpDisplayStatus", "hidden"],
      ["sectionChange", "usca"],
      ["signalStatus", "ready"],
    ]);
    expect(ask("getField", "usca.SaleOptOut")).toBe(1);
  });

  it("is not ready while somebody thinks again, and ready last", async () => {
    stored();
    visit(usSite(), gpp);
    listen();
    await quittance.open();
    const root = document.querySelector("quittance-banner")?.shadowRoot;
    root?.querySelector<HTMLElement>("dialog [data-action=accept]")?.click();
    expect(heard).toEqual([
      ["listenerRegistered", true],
      ["signalStatus", "not ready"],
      ["cmpDisplayStatus", "visible"],
      ["cmpDisplayStatus", "hidden"],
      ["sectionChange", "usca"],
      ["signalStatus", "ready"],
    ]);
  });

  it("is ready with the opt-out while only the honoured signal is told of", async () => {
    visit(usSite({ gpc: true }), gpp);
    listen();
    expect(ask("ping")).toMatchObject({ signalStatus: "ready", cmpDisplayStatus: "visible" });
    expect(ask("getField", "usca.SaleOptOut")).toBe(1);
    const root = document.querySelector("quittance-banner")?.shadowRoot;
    await quittance.open();
    expect(ask("ping")).toMatchObject({ signalStatus: "not ready", cmpDisplayStatus: "visible" });
    root?.querySelector<HTMLElement>("dialog [data-action=close]")?.click();
    expect(ask("ping")).toMatchObject({ signalStatus: "ready", cmpDisplayStatus: "visible" });
    root?.querySelector<HTMLElement>(".banner [data-action=close]")?.click();
    expect(heard).toEqual([
      ["listenerRegistered", true],
      ["signalStatus", "not ready"],
      ["signalStatus", "ready"],
      ["cmpDisplayStatus", "hidden"],
    ]);
  });

  it("is ready where nobody is asked, and tells vendors nothing but that", () => {
    const config = usSite({ gpc: true });
    const purposes = config.purposes.map((each) => ({ ...each, denied_by_gpc: false }));
    visit({ ...config, purposes }, gpp);
    listen();
    expect(ask("ping")).toMatchObject({ signalStatus: "ready", cmpDisplayStatus: "hidden" });
    expect(heard).toEqual([["listenerRegistered", true]]);
  });

  it("answers ping, sections, fields and listeners by the specification", () => {
    visit(usSite({ region: "US-VA" }), gpp);
    expect(ask("ping")).toMatchObject({
      gppVersion: "1.1",
      supportedAPIs: ["7:usnat", "8:usca"],
      sectionList: [7],
      cmpDisplayStatus: "visible",
    });
    expect(ask("hasSection", "usnat")).toBe(true);
    expect(ask("hasSection", "tcfeuv2")).toBe(false);
    expect(ask("getSection", "usca")).toBeNull();
    expect(ask("getField", "usnat.MspaCoveredTransaction")).toBe(2);
    expect(ask("removeEventListener", 77)).toMatchObject({
      eventName: "listenerRemoved",
      data: false,
    });
    expect(ask("constructor")).toBeNull();
  });

  it.each([
    ["outside the United States", site()],
    ["where people are asked first", site({ region: "US-NY" })],
    ["where people are only told", site({ region: "US-NY", mode: "notice" })],
  ])("applies nowhere %s", (_, config) => {
    visit(config, gpp);
    expect(ask("ping")).toMatchObject({ applicableSections: [-1], gppString: "DBAA" });
  });

  it("answers frames by message, in the form they asked in", async () => {
    visit(usSite(), gpp);
    const source = { postMessage: vi.fn() } as unknown as Window;
    const data = JSON.stringify({ __gppCall: { command: "ping", version: "1.1", callId: "c" } });
    window.dispatchEvent(new MessageEvent("message", { data, source }));
    window.dispatchEvent(new MessageEvent("message", { data: "not for us", source }));
    await later();
    const [[reply]] = (source.postMessage as ReturnType<typeof vi.fn>).mock.calls as [[string]];
    expect(JSON.parse(reply).__gppReturn).toMatchObject({ callId: "c", success: true });
    expect(document.querySelector('iframe[name="__gppLocator"]')).not.toBeNull();
  });
});

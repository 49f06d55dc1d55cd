import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Config } from "../src/config";
import * as dialog from "../src/dialog";
import { type Change, type Module, type Quittance, start } from "../src/main";
import { encode } from "../src/storage";
import { decision, site, usSite } from "./fixtures";

let network: ReturnType<typeof vi.fn<typeof fetch>>;
/** What was sent once nothing goes first any more. */
const posted = () => {
  window.dispatchEvent(new Event("online"));
  return network.mock.calls.map(([, init]) => JSON.parse(String(init?.body)));
};
const mutations = () => new Promise((resolve) => setTimeout(resolve));
const host = () => document.querySelector("quittance-banner");
const inside = (selector: string) => host()?.shadowRoot?.querySelector<HTMLElement>(selector);
const banner = () => inside("[role=region]");

let quittance: Quittance;
let importDialog = async (): Promise<typeof dialog> => dialog;
let changes: Change[];
const heard = (event: Event) => changes.push((event as CustomEvent<Change>).detail);

/** What a page leaves behind would answer for the next one in the same document. */
const undo: (() => void)[] = [];
const leave = () => {
  for (const step of undo.splice(0)) step();
};

function visit(
  config: Config = site(),
  modules: readonly Module[] = [],
  meanwhile = () => {},
): void {
  leave();
  const { observe } = MutationObserver.prototype;
  vi.spyOn(MutationObserver.prototype, "observe").mockImplementation(function (
    this: MutationObserver,
    ...rest
  ) {
    undo.push(() => this.disconnect());
    return observe.apply(this, rest);
  });
  const listen = window.addEventListener;
  vi.spyOn(window, "addEventListener").mockImplementation(
    (type: string, listener: EventListenerOrEventListenerObject) => {
      undo.push(() => window.removeEventListener(type, listener));
      listen.call(window, type, listener);
    },
  );
  const waiting: (() => void)[] = [];
  vi.spyOn(globalThis, "setTimeout").mockImplementation((run) => {
    waiting.push(run as () => void);
    return 0 as never;
  });
  Reflect.deleteProperty(window, "quittance");
  document.body.replaceChildren(document.createElement("main"));
  quittance = start(config, modules, importDialog);
  meanwhile();
  for (const run of waiting) run();
  vi.restoreAllMocks();
}

beforeEach(() => {
  localStorage.clear();
  document.cookie = "qt_shop=; Path=/; Max-Age=0; Secure";
  network = vi.fn<typeof fetch>().mockRejectedValue(new TypeError("offline"));
  vi.stubGlobal("fetch", network);
  HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
    this.open = true;
  };
  HTMLDialogElement.prototype.close ??= function (this: HTMLDialogElement) {
    this.open = false;
    this.dispatchEvent(new Event("close"));
  };
  importDialog = async () => dialog;
  changes = [];
  document.addEventListener("quittance:change", heard);
});

afterEach(() => {
  leave();
  document.removeEventListener("quittance:change", heard);
  vi.unstubAllGlobals();
});

describe("a first visit", () => {
  it("shows the banner first in the page and stores nothing", async () => {
    visit();
    expect(document.body.firstElementChild).toBe(host());
    expect(banner()?.getAttribute("aria-label")).toBe("Your privacy");
    expect(await quittance.ready).toMatchObject({ analytics: false, necessary: true });
    expect(document.cookie + JSON.stringify(localStorage)).not.toContain("qt_shop");
    expect(network).not.toHaveBeenCalled();
    expect(changes).toEqual([]);
  });

  it.each([
    ["accept", "accept_all", true],
    ["reject", "reject_all", false],
  ])("%s is stored, posted, announced, and the banner goes", (action, method, value) => {
    visit();
    inside(`[data-action=${action}]`)?.click();
    const choices = { functional: value, analytics: value, advertising: value };
    expect(banner()).toBeNull();
    expect(host()).not.toBeNull();
    expect(posted()).toEqual([expect.objectContaining({ method, choices })]);
    const told = { necessary: true, ...choices };
    expect(changes).toEqual([{ method, choices: told, reloadAdvised: false, isElsewhere: false }]);
    visit();
    expect(banner()).toBeNull();
    expect(quittance.has("analytics")).toBe(value);
    expect(changes).toHaveLength(1);
  });

  it("asks again when the question changed, and says what is new", () => {
    visit();
    quittance.accept();
    visit(site({ notice_version: "8" }));
    expect(banner()).toBeNull();
    visit(site({ notice_version: "9", material: "m9", news: { "7": ["Shop Ltd", "Analytics"] } }));
    expect(inside(".changed")?.textContent).toBe("New: Shop Ltd, Analytics.");
    expect(quittance.has("analytics")).toBe(false);
    visit(site({ notice_version: "9", material: "m9", news: { "7": [] } }));
    expect(inside(".changed")?.textContent).toBe("Our notice has changed.");
  });

  it("asks again when the choice has run out, and says of which day it was", () => {
    const decidedAt = Date.now() - 200 * 86_400_000;
    localStorage.setItem("qt_shop", encode(decision({ decidedAt })));
    visit();
    const day = new Date(decidedAt).toLocaleDateString("en-GB", { dateStyle: "long" });
    expect(day).toMatch(/^\d+ [A-Z]/);
    expect(inside(".changed")?.textContent).toBe(`Yours of ${day} has run out.`);
  });

  it("tells and asks nothing where the law only wants people told", () => {
    const config = site({ mode: "notice" });
    const purposes = config.purposes.map((each) => ({ ...each, default: true }));
    visit({ ...config, purposes });
    expect(inside("[data-action=accept]") ?? inside("[data-action=reject]")).toBeNull();
    expect(quittance.has("analytics")).toBe(true);
    inside("[data-action=close]")?.click();
    expect(posted()).toEqual([expect.objectContaining({ method: "dismissed" })]);
    visit({ ...config, purposes });
    expect(banner()).toBeNull();
  });

  it("asks first where the browser's time zone calls for it, and records under which law", () => {
    const zones = [[Intl.DateTimeFormat().resolvedOptions().timeZone, "gdpr"]] as const;
    visit(usSite({ strict: { zones, honours_gpc: ["gdpr"], texts: { body: "We ask you." } } }));
    expect([quittance.mode, quittance.regime]).toEqual(["opt_in", "gdpr"]);
    expect(quittance.has("analytics")).toBe(false);
    expect(inside("[data-action=reject]")?.textContent).toBe("Reject all");
    quittance.reject();
    expect(posted()).toEqual([expect.objectContaining({ region: "US-CA", regime: "gdpr" })]);
    localStorage.clear();
    visit(usSite());
    quittance.reject();
    expect(posted().at(-1)).not.toHaveProperty("regime");
  });

  it("shows nothing where the regime needs no banner", () => {
    visit(site({ shown: false }));
    expect(banner()).toBeNull();
    expect(quittance.has("analytics")).toBe(false);
  });
});

it("names what it asks for, links the site's own policy, writes in the language's direction", () => {
  visit(site({ language: "ar", direction: "rtl", policy_url: "/policy" }));
  expect(inside(".purposes")?.textContent).toBe("The functional · The analytics · The advertising");
  expect(inside("a")?.getAttribute("href")).toBe("/policy");
  expect(banner()?.getAttribute("dir")).toBe("rtl");
  visit(site({ policy_url: "" }));
  expect(inside("a")).toBeNull();
  expect((host() as HTMLElement).dataset.position).toBeUndefined();
  visit(site({ theme: { position: "center", sheet: "" } }));
  expect((host() as HTMLElement).dataset.position).toBe("center");
});

describe("the page's object", () => {
  it("sets, withdraws, and announces only real changes", () => {
    visit();
    quittance.set({ analytics: true });
    quittance.set({ analytics: true });
    quittance.withdraw();
    quittance.withdraw();
    expect(changes.map(({ method }) => method)).toEqual(["custom", "withdrawal"]);
    expect(quittance.choices()).toEqual({
      necessary: true,
      functional: false,
      analytics: false,
      advertising: false,
    });
    expect(quittance.has("necessary")).toBe(true);
    expect(quittance.has("toString")).toBe(false);
  });

  it("tells listeners until they leave, whatever another listener does", () => {
    visit();
    vi.spyOn(console, "error").mockReturnValue();
    const listener = vi.fn();
    quittance.on("change", () => {
      throw new Error("a page's mistake");
    });
    const off = quittance.on("change", listener);
    quittance.accept();
    off();
    quittance.reject();
    expect(listener).toHaveBeenCalledOnce();
  });

  it("is one, even when the tag stands twice in the page", () => {
    visit();
    expect(start(site())).toBe(quittance);
    expect(document.querySelectorAll("quittance-banner")).toHaveLength(1);
  });

  it("knows the record's id once the service has answered, and in later pages", async () => {
    network.mockImplementation(
      async () => new Response(JSON.stringify({ consent_id: "con_77" }), { status: 201 }),
    );
    visit();
    quittance.accept();
    expect(quittance.consentId).toBeNull();
    posted();
    await mutations();
    expect(quittance.consentId).toBe("con_77");
    visit();
    expect(quittance.consentId).toBe("con_77");
  });
});

describe("preferences", () => {
  it("save what is ticked; required purposes cannot be unticked", async () => {
    visit();
    await quittance.open();
    const box = (id: string) => inside(`dialog [name=${id}]`) as HTMLInputElement;
    expect(box("necessary").disabled && box("necessary").checked).toBe(true);
    expect(box("analytics").checked).toBe(false);
    box("functional").click();
    inside("dialog [data-action=save]")?.click();
    expect(inside("dialog")).toBeNull();
    expect(posted()[0]).toMatchObject({
      method: "custom",
      choices: { functional: true, analytics: false, advertising: false },
    });
  });

  it("show the proof and offer withdrawal after a grant", async () => {
    localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() - 1000 })));
    visit();
    await quittance.open();
    expect(inside(".record")?.textContent).toMatch(/^Record con_1, /);
    inside("[data-action=withdraw]")?.click();
    expect(posted()[0]).toMatchObject({ method: "withdrawal" });
  });

  it("show the proof of what is outdated, too", async () => {
    localStorage.setItem(
      "qt_shop",
      encode(decision({ material: "m1", decidedAt: Date.now() - 9 })),
    );
    const { texts } = site();
    visit(site({ texts: { ...texts, receipt: "Receipt" } }));
    expect(quittance.consentId).toBeNull();
    await quittance.open();
    expect(inside(".record")?.textContent).toMatch(/^Record con_1, /);
    expect(inside("dialog .more a")?.getAttribute("href")).toMatch(/receipts\/con_1$/);
    expect(inside("[data-action=withdraw]")).toBeNull();
  });

  it("lead to the form for requests, in a notice that has a label for it", async () => {
    visit();
    await quittance.open();
    expect(inside("dialog a")).toBeNull();
    const { texts } = site();
    visit(site({ texts: { ...texts, your_data: "Your data at Shop" } }));
    await quittance.open();
    const link = inside("dialog a");
    expect([link?.textContent, link?.getAttribute("href")]).toEqual([
      "Your data at Shop",
      "https://shop.example/privacy",
    ]);
  });

  it("offer no withdrawal of what was never given", async () => {
    visit(usSite());
    quittance.set({ advertising: false });
    await quittance.open();
    expect(inside("[data-action=withdraw]")).toBeNull();
    inside("dialog [data-action=save]")?.click();
    await quittance.open();
    expect(inside("[data-action=withdraw]")).toBeNull();
    inside("dialog [data-action=accept]")?.click();
    await quittance.open();
    expect(inside("[data-action=withdraw]")).not.toBeNull();
    localStorage.clear();
    visit(usSite({ gpc: true }));
    await quittance.open();
    expect(inside("[data-action=withdraw]")).toBeNull();
  });
});

describe("Global Privacy Control under opt-out", () => {
  it("is recorded and shown once, without a question", () => {
    visit(usSite({ gpc: true, shown: false }));
    expect(posted()[0]).toMatchObject({
      method: "gpc",
      gpc: true,
      choices: { functional: true, analytics: true, advertising: false },
    });
    expect(banner()?.textContent).toContain("signal is honoured");
    expect(inside("[data-action=accept]")).toBeNull();
    inside("[data-action=close]")?.click();
    expect(banner()).toBeNull();
    visit(usSite({ gpc: true, shown: false }));
    expect(banner()).toBeNull();
    expect(changes).toHaveLength(1);
  });
});

it("does not claim to honour a signal that the visitor overruled", async () => {
  visit(usSite({ gpc: true }));
  await quittance.open();
  expect(inside("dialog .gpc")).not.toBeNull();
  inside("dialog [data-action=accept]")?.click();
  await mutations();
  await quittance.open();
  expect(inside("dialog .gpc")?.textContent).toBe("Your later choice counts.");
});

it("forbids under opt-out what the button names", async () => {
  visit(usSite());
  expect(inside("[data-action=reject]")?.textContent).toBe("Do not sell or share");
  inside("[data-action=reject]")?.click();
  expect(posted()).toEqual([
    expect.objectContaining({ method: "custom", choices: { advertising: false } }),
  ]);
  expect(quittance.has("analytics")).toBe(true);
  await quittance.open();
  inside("dialog [data-action=accept]")?.click();
  await quittance.open();
  inside("dialog [data-action=reject]")?.click();
  expect([quittance.has("advertising"), quittance.has("analytics")]).toEqual([false, true]);
});

it("keeps what is switched off beside the button that forbids a sale", async () => {
  visit(usSite());
  await quittance.open();
  inside("dialog [name=functional]")?.click();
  inside("dialog [data-action=reject]")?.click();
  const choices = { functional: false, advertising: false };
  expect(posted()).toEqual([expect.objectContaining({ choices })]);
});

it("says where nothing but what is sold is asked for what the law calls it, too", () => {
  const config = usSite();
  const purposes = config.purposes.filter((each) => each.required || each.denied_by_gpc);
  visit({ ...config, purposes });
  expect(inside("[data-action=reject]")?.textContent).toBe("Do not sell or share");
  inside("[data-action=reject]")?.click();
  expect(posted()).toEqual([expect.objectContaining({ choices: { advertising: false } })]);
});

it("has a button to refuse all under opt-out where nothing is sold", () => {
  const config = usSite();
  visit({ ...config, purposes: config.purposes.filter((each) => !each.denied_by_gpc) });
  expect(inside("[data-action=reject]")?.textContent).toBe("Reject all");
  inside("[data-action=reject]")?.click();
  const refused = { functional: false, analytics: false };
  expect(posted().at(-1)).toMatchObject({ method: "reject_all", choices: refused });
});

it("lets sensitive data be limited under opt-out, and only that", async () => {
  const config = usSite();
  const purposes = config.purposes.map((each) => ({ ...each, sensitive: each.id === "analytics" }));
  visit({ ...config, purposes });
  await quittance.open();
  inside("dialog [data-action=limit]")?.click();
  expect(posted()[0].method).toBe("custom");
  expect(posted()[0].choices).toEqual({ analytics: false }); // the others nobody chose
  await mutations();
  visit({ ...config, purposes });
  expect([quittance.has("advertising"), quittance.has("analytics")]).toEqual([true, false]);
  expect(banner()).toBeNull();
  await quittance.open();
  expect(inside("dialog [data-action=limit]")).toBeNull();
});

describe("a dialog that cannot be loaded", () => {
  it("is said in the banner, which can be answered, and is asked for again", async () => {
    vi.spyOn(console, "error").mockReturnValue();
    localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() - 1000 })));
    const load = vi.fn(importDialog).mockRejectedValueOnce(new TypeError("offline"));
    importDialog = load;
    visit();
    expect(banner()).toBeNull();
    await quittance.open();
    expect(inside("[role=alert]")?.textContent).toBe("Could not be loaded.");
    expect(inside("[data-action=reject]")).not.toBeNull();
    await quittance.open();
    expect(inside("dialog")).not.toBeNull();
    expect(load).toHaveBeenCalledTimes(2);
  });

  it("is fetched once when somebody is about to open it", async () => {
    const load = vi.fn(importDialog);
    importDialog = load;
    visit();
    inside("[data-action=manage]")?.dispatchEvent(new Event("pointerenter"));
    inside("[data-action=manage]")?.dispatchEvent(new Event("focus"));
    await quittance.open();
    expect(load).toHaveBeenCalledOnce();
  });
});

describe("withdrawal", () => {
  const trackers = [
    { kind: "cookie", pattern: "_ga*", purpose: "analytics", http_only: false },
    { kind: "storage", pattern: "uid", purpose: "analytics", http_only: false },
  ] as const;

  it("clears what the purpose left, tells so, and advises a reload where a script has run", () => {
    const script = document.createElement("script");
    script.type = "text/plain";
    script.dataset.purpose = "analytics";
    script.text = "/* counts */";
    visit(site({ trackers }));
    document.body.append(script);
    const swept = vi.fn();
    quittance.on("swept", swept);
    quittance.accept();
    document.cookie = "_ga_1=x; Path=/";
    document.cookie = "basket=1; Path=/";
    localStorage.setItem("uid", "x");
    quittance.withdraw();
    expect(document.cookie).not.toContain("_ga_1");
    expect(document.cookie).toContain("basket=1");
    expect(localStorage.getItem("uid")).toBeNull();
    expect(swept).toHaveBeenCalledWith({ cleared: ["_ga_1", "uid"], left: [] });
    expect(changes.map(({ reloadAdvised }) => reloadAdvised)).toEqual([false, true]);
  });

  it("leaves alone what somebody left before any choice", () => {
    document.cookie = "_ga_1=x; Path=/";
    visit(site({ trackers }));
    expect(quittance.sweep()).toEqual({ cleared: [], left: [] });
    expect(document.cookie).toContain("_ga_1");
    quittance.reject();
    expect(document.cookie).not.toContain("_ga_1");
  });
});

it("puts the site's own tags into the page, held back", async () => {
  const tags = [
    { src: "https://stats.example/s.js", purpose: "analytics", load: "async" },
    { src: "https://ads.example/a.mjs", purpose: "advertising", load: "module" },
  ] as const;
  visit(site({ tags }));
  const held = [...document.head.querySelectorAll("script[data-purpose]")];
  expect(held.map((each) => each.getAttribute("type"))).toEqual(["text/plain", "text/plain"]);
  quittance.set({ analytics: true });
  const running = document.head.querySelector("script[src]") as HTMLScriptElement;
  expect([running.src, running.async]).toEqual(["https://stats.example/s.js", true]);
  for (const each of document.head.querySelectorAll("script")) each.remove();
});

describe("modules", () => {
  it("bring what was said to another consent manager, once and recorded as such", async () => {
    const choices = { analytics: true, advertising: false };
    const earlier = vi.fn(() => ({ choices, at: Date.now() - 1000 }));
    visit(site(), [{ earlier }]);
    expect(posted()).toEqual([expect.objectContaining({ method: "migrated" })]);
    expect(quittance.has("analytics")).toBe(true);
    expect(banner()).toBeNull();
    expect(await quittance.ready).toMatchObject({ analytics: true });
    visit(site(), [{ earlier }]);
    expect(earlier).toHaveBeenCalledOnce();
  });

  it("are installed before anything is opened", () => {
    const script = document.createElement("script");
    localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() - 1000 })));
    let wasHeld: boolean | undefined;
    const install = vi.fn(() => {
      wasHeld = script.isConnected;
    });
    script.type = "text/plain";
    script.dataset.purpose = "analytics";
    document.head.append(script);
    visit(site(), [{ install }]);
    expect(install).toHaveBeenCalledWith(
      quittance,
      expect.anything(),
      expect.anything(),
      expect.any(Function),
    );
    expect(wasHeld).toBe(true);
    expect(script.isConnected).toBe(false);
  });
});

describe("a person who signs in", () => {
  const state = (decidedAt: number) => ({
    mode: "opt_in",
    choices: { functional: true, analytics: true, advertising: false },
    decided_at: new Date(decidedAt).toISOString(),
    notice_version: "7",
    consent_id: "con_9",
    source: "other_device",
    stale: false,
  });

  it("has what was chosen on another device, without another record", async () => {
    visit();
    network.mockResolvedValue(new Response(JSON.stringify({ state: state(Date.now()) })));
    await quittance.identify("token");
    expect(quittance.has("analytics")).toBe(true);
    expect(quittance.consentId).toBe("con_9");
    expect(banner()).toBeNull();
    expect(network).toHaveBeenCalledOnce();
  });

  it("is asked where the law asks first, whatever was left on where it does not", async () => {
    visit();
    const told = { ...state(Date.now()), mode: "opt_out" };
    network.mockResolvedValue(new Response(JSON.stringify({ state: told })));
    await quittance.identify("token");
    for (const page of ["this", "next"]) {
      expect([page, quittance.decided, quittance.has("analytics")]).toEqual([page, false, false]);
      expect(banner()).not.toBeNull();
      visit();
    }
  });

  it("is denied at once what another device denied and this one left be", async () => {
    const at = Date.now() - 1000;
    const mine = { mode: "opt_out", choices: { functional: false }, decidedAt: at } as const;
    localStorage.setItem("qt_shop", encode(decision(mine)));
    visit(usSite());
    expect(quittance.has("advertising")).toBe(true);
    const told = { ...state(at), choices: { functional: false, advertising: false } };
    network.mockResolvedValue(new Response(JSON.stringify({ state: told })));
    await quittance.identify("token");
    for (const page of ["this", "next"]) {
      const held = ["functional", "analytics", "advertising"].map(quittance.has);
      expect([page, ...held]).toEqual([page, false, true, false]);
      visit(usSite());
    }
  });

  it.each([
    ["a signal denied", { state: null, isSignal: true }],
    [
      "an outdated choice refused",
      { state: { stale: true, choices: { advertising: false } }, isSignal: false },
    ],
  ])("is denied on this page and the next what %s elsewhere", async (_, told) => {
    const at = new Date().toISOString();
    const signal = told.isSignal && {
      denied: ["advertising"],
      decided_at: at,
      consent_id: "con_s",
    };
    const answer = { state: told.state && { ...state(Date.now()), ...told.state }, signal };
    visit(usSite());
    expect(quittance.has("advertising")).toBe(true);
    network.mockResolvedValue(new Response(JSON.stringify(answer)));
    await quittance.identify("token");
    expect(changes).toHaveLength(1);
    for (const page of ["this", "next"]) {
      expect([page, ...["analytics", "advertising"].map(quittance.has)]).toEqual([
        page,
        true,
        false,
      ]);
      visit(usSite());
    }
    expect(network).toHaveBeenCalledOnce();
  });

  it("has an older choice in place of a notice that was closed here, on the next page as well", async () => {
    const dismissed = {
      method: "dismissed",
      mode: "opt_out",
      decidedAt: Date.now() - 1000,
    } as const;
    const line = encode(decision(dismissed));
    document.cookie = `qt_shop=${line}; Path=/; Secure`;
    localStorage.setItem("qt_shop", line);
    visit(usSite());
    const told = { ...state(Date.now() - 5000), mode: "opt_out" };
    network.mockImplementation(async () => new Response(JSON.stringify({ state: told })));
    for (const page of ["this", "next"]) {
      await quittance.identify("token");
      expect([page, quittance.has("advertising"), quittance.consentId]).toEqual([
        page,
        false,
        "con_9",
      ]);
      visit(usSite());
      expect([page, quittance.has("advertising"), quittance.consentId]).toEqual([
        page,
        false,
        "con_9",
      ]);
    }
  });

  it("tells first what was chosen here, and has the last word while it waits", async () => {
    visit();
    quittance.reject();
    let answer: (response: Response) => void = () => {};
    network.mockImplementation((address) =>
      String(address).endsWith("/link")
        ? new Promise((resolve) => {
            answer = resolve;
          })
        : Promise.resolve(new Response(JSON.stringify({ consent_id: "con_1" }))),
    );
    const linked = quittance.identify("token");
    await vi.waitFor(() => expect(network).toHaveBeenCalledTimes(2));
    expect(network.mock.calls.map(([address]) => String(address).split("/v1/")[1])).toEqual([
      "consent",
      "visitors/link",
    ]);
    quittance.accept();
    answer(new Response(JSON.stringify({ state: state(Date.now() + 60_000) })));
    expect(await linked).toBe(true);
    expect(quittance.has("advertising")).toBe(true);
  });

  it("is denied by what another tab has stored, too", async () => {
    const at = Date.now() - 1000;
    const all = { functional: true, analytics: true, advertising: true };
    visit(usSite());
    const signal = {
      denied: ["advertising"],
      decided_at: new Date(at).toISOString(),
      consent_id: "s",
    };
    network.mockResolvedValue(new Response(JSON.stringify({ state: null, signal })));
    const elsewhere = { method: "accept_all", mode: "opt_out", choices: all } as const;
    localStorage.setItem(
      "qt_shop",
      encode(decision({ ...elsewhere, decidedAt: at, consentId: "con_1" })),
    );
    await quittance.identify("token");
    expect([quittance.consentId, quittance.has("analytics"), quittance.has("advertising")]).toEqual(
      ["con_1", true, false],
    );
    expect(localStorage.getItem("qt_shop")).toContain("-advertising");
  });

  const signal = () => ({
    denied: ["advertising"],
    decided_at: new Date(Date.now() - 1000).toISOString(),
    consent_id: "con_s",
  });
  const hearSignal = () =>
    network.mockImplementation(async (address) =>
      String(address).endsWith("/link")
        ? Response.json({ state: null, signal: signal() })
        : Response.json({ consent_id: "con_1" }),
    );
  const holding = () => ["functional", "analytics", "advertising"].filter(quittance.has);

  it("has it also in place of a cookie of this host alone, where sites share one", async () => {
    const closed = { method: "dismissed", mode: "opt_out", decidedAt: Date.now() - 1000 } as const;
    localStorage.setItem("qt_shop", encode(decision(closed)));
    visit(usSite({ first_party: "https://privacy.shop.example" }));
    const told = { ...state(Date.now() - 5000), mode: "opt_out" };
    network.mockResolvedValue(Response.json({ state: told }));
    const write = vi.spyOn(Document.prototype, "cookie", "set"); // to jsdom both are one cookie
    await quittance.identify("token");
    expect(write.mock.calls[0]).toEqual(["qt_shop=; Path=/; Max-Age=0"]);
    document.cookie = "qt_shop=; Path=/; Domain=shop.example; Max-Age=0; Secure";
  });

  it("keeps what an outdated choice refused beside what a signal denied", async () => {
    const choices = { functional: true, analytics: false, advertising: true };
    const outdated = { mode: "opt_out", notice: "6", material: "m6", choices } as const;
    localStorage.setItem("qt_shop", encode(decision(outdated)));
    visit(usSite());
    hearSignal();
    await quittance.identify("token");
    visit(usSite());
    expect(holding()).toEqual(["functional"]);
  });

  it("keeps what another tab has stored a moment ago", async () => {
    const granted = { functional: true, analytics: true, advertising: true };
    const store = (choices: typeof granted, decidedAt: number) =>
      localStorage.setItem("qt_shop", encode(decision({ mode: "opt_out", choices, decidedAt })));
    store(granted, Date.now() - 5000);
    visit(usSite());
    store({ ...granted, analytics: false }, Date.now() - 3000); // this one has not been told yet
    hearSignal();
    await quittance.identify("token");
    expect(holding()).toEqual(["functional"]);
    expect(localStorage.getItem("qt_shop")).toContain("-analytics");
  });

  it("keeps the choice where nothing can be stored", async () => {
    visit();
    vi.spyOn(Document.prototype, "cookie", "set").mockImplementation(() => {});
    vi.spyOn(Storage.prototype, "setItem").mockImplementation(() => {
      throw new DOMException("blocked");
    });
    quittance.accept();
    hearSignal();
    await quittance.identify("token");
    expect(holding()).toEqual(["functional", "analytics"]);
  });

  it("is asked when the browser's choice was somebody else's", async () => {
    localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() - 1000 })));
    const rule = { pattern: "_ga", purpose: "analytics", http_only: false };
    visit(site({ trackers: [{ kind: "cookie", ...rule }] }));
    expect(banner()).toBeNull();
    network
      .mockResolvedValueOnce(new Response("", { status: 409 }))
      .mockResolvedValueOnce(new Response(JSON.stringify({ state: null })));
    document.cookie = "_ga=x; Path=/";
    await quittance.identify("token");
    expect(banner()).not.toBeNull();
    expect(quittance.decided).toBe(false);
    expect(quittance.has("analytics")).toBe(false);
    expect(document.cookie).not.toContain("_ga");
    expect(changes.map(({ isElsewhere }) => isElsewhere)).toEqual([true]);
    // Nor does what another tool kept of that person count on the next page.
    const earlier = vi.fn(() => ({ choices: { analytics: true }, at: Date.now() }));
    visit(site(), [{ earlier }]);
    expect(earlier).not.toHaveBeenCalled();
    expect(banner()).not.toBeNull();
    quittance.reject();
    visit();
    expect(quittance.decided).toBe(true);
  });
});

it("is denied what another tab denies at the same moment, and is not misled by its own record", async () => {
  visit();
  quittance.accept();
  const held = (localStorage.getItem("qt_shop") ?? "").replace("+advertising", "-advertising");
  const line = held.replace(/\|[^|]*(\|[^|]*)$/, "|con_5$1");
  document.cookie = `qt_shop=${line}; Path=/; Secure`;
  localStorage.setItem("qt_shop", line);
  network.mockResolvedValue(Response.json({ consent_id: "con_1" }));
  posted();
  await vi.waitFor(() => expect(localStorage.getItem("qt_shop_q")).toBeNull());
  expect([quittance.consentId, quittance.has("advertising")]).toEqual(["con_5", false]);
  expect(localStorage.getItem("qt_shop")).toBe(line);
});

it("keeps what another tab has heard of when its own record arrives", async () => {
  visit(usSite());
  quittance.accept();
  const line = (localStorage.getItem("qt_shop") ?? "")
    .replace("+advertising", "-advertising")
    .replace(/\|[^|]*(\|[^|]*)$/, "|con_1$1");
  localStorage.setItem("qt_shop", line); // it was not told
  network.mockResolvedValue(Response.json({ consent_id: "con_1" }));
  posted();
  await vi.waitFor(() => expect(quittance.consentId).toBe("con_1"));
  expect(quittance.has("advertising")).toBe(false);
  expect(localStorage.getItem("qt_shop")).toBe(line);
});

it("leaves a later answer of another tab stored when its own record arrives", async () => {
  visit();
  quittance.accept();
  const newer = { material: "m8", notice: "8", decidedAt: Date.now() + 1000 };
  const line = encode(decision(newer));
  localStorage.setItem("qt_shop", line);
  network.mockResolvedValue(Response.json({ consent_id: "con_1" }));
  posted();
  await vi.waitFor(() => expect(quittance.consentId).toBe("con_1"));
  expect(localStorage.getItem("qt_shop")).toBe(line);
  expect([quittance.has("analytics"), quittance.has("advertising")]).toEqual([true, false]);
});

it("opens the preferences at a click on whatever the page marks for it", async () => {
  visit();
  const link = document.createElement("a");
  link.href = "/settings";
  link.dataset.quittanceOpen = "";
  link.append(document.createElement("span"));
  document.body.append(link);
  const click = new MouseEvent("click", { bubbles: true, cancelable: true });
  link.firstElementChild?.dispatchEvent(click);
  await mutations();
  expect(click.defaultPrevented).toBe(true);
  expect(inside("dialog")?.hasAttribute("open")).toBe(true);
});

it("hears of the record that another tab got for a choice made here", () => {
  visit();
  const recorded = vi.fn();
  quittance.on("recorded", recorded);
  quittance.reject();
  const line = localStorage.getItem("qt_shop") ?? "";
  const fields = line.split("|");
  fields[7] = "con_5";
  document.cookie = `qt_shop=${fields.join("|")}; Path=/; Secure`;
  localStorage.setItem("qt_shop", fields.join("|"));
  window.dispatchEvent(new StorageEvent("storage", { key: "qt_shop" }));
  expect(quittance.consentId).toBe("con_5");
  expect(recorded).toHaveBeenCalledWith({ consentId: "con_5" });
});

it.each(["before it listens", "later"])("follows a choice made in another tab %s", (when) => {
  const choose = () => {
    localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() })));
    window.dispatchEvent(new StorageEvent("storage", { key: "qt_shop" }));
  };
  visit(site(), [], when === "later" ? undefined : choose);
  if (when === "later") choose();
  expect(quittance.has("analytics")).toBe(true);
  expect(banner()).toBeNull();
  expect(posted()).toEqual([]);
  expect(changes).toHaveLength(1);
});

describe("a page that stays open while another one says who is signed in", () => {
  const accepted = decision({
    mode: "opt_out",
    method: "accept_all",
    choices: { functional: true, analytics: true, advertising: true },
    decidedAt: Date.now() - 1000,
  });
  const hear = (stored: ReturnType<typeof decision>) => {
    localStorage.setItem("qt_shop", encode(stored));
    window.dispatchEvent(new StorageEvent("storage", { key: "qt_shop" }));
    return ["functional", "analytics", "advertising"].filter(quittance.has);
  };
  const told = () => changes.map(({ choices, isElsewhere }) => [choices.advertising, isElsewhere]);

  it("denies what a signal denied elsewhere, and asks as before", () => {
    visit(usSite());
    const silence = decision({ mode: "opt_out", method: "gpc", material: "-", choices: {} });
    expect(hear({ ...silence, choices: { advertising: false } })).toEqual([
      "functional",
      "analytics",
    ]);
    expect([quittance.decided, told()]).toEqual([false, [[false, true]]]);
    expect(banner()).not.toBeNull();
  });

  it("denies what is denied since in the decision that it has, once", () => {
    localStorage.setItem("qt_shop", encode(accepted));
    visit(usSite());
    const joined = { ...accepted, choices: { ...accepted.choices, advertising: false } };
    for (const _ of ["heard", "heard again"])
      expect(hear(joined)).toEqual(["functional", "analytics"]);
    expect([quittance.consentId, told()]).toEqual(["con_1", [[false, true]]]);
    expect(posted()).toEqual([]);
  });

  it.each([usSite(), site()])(
    "denies no more than another one that answers a newer notice",
    (config) => {
      const mine = { ...accepted, mode: config.mode };
      localStorage.setItem("qt_shop", encode(mine));
      visit(config);
      const newer = { ...mine, material: "m8", notice: "8", decidedAt: Date.now() };
      expect(hear(newer)).toEqual(["functional", "analytics", "advertising"]);
      const fewer = { ...newer, choices: { ...newer.choices, analytics: false } };
      expect(hear(fewer)).toEqual(["functional", "advertising"]);
      expect([quittance.decided, banner(), told()]).toEqual([true, null, [[true, true]]]);
      expect(localStorage.getItem("qt_shop")).toBe(encode(fewer));
    },
  );
});

it("posts what waits when the page ends", () => {
  visit();
  quittance.reject();
  expect(network).not.toHaveBeenCalled();
  window.dispatchEvent(new Event("pagehide"));
  expect(network).toHaveBeenCalledOnce();
});

it("gives a held back frame two ways in", async () => {
  visit();
  const frame = document.createElement("iframe");
  frame.dataset.purpose = "advertising";
  frame.dataset.src = "/video";
  document.body.append(frame);
  await mutations();
  const placeholder = document.querySelector("quittance-placeholder")?.shadowRoot;
  expect(placeholder?.textContent).toContain("The advertisingHeld back.");
  placeholder?.querySelector<HTMLElement>("[data-action=once]")?.click();
  expect(frame.getAttribute("src")).toBe("/video");
  expect(quittance.has("advertising")).toBe(false);
  expect(posted()).toEqual([]);
});

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Config } from "../src/config";
import { type Change, type Quittance, start } from "../src/main";
import { encode } from "../src/storage";
import { decision, site, usSite } from "./fixtures";

let network: ReturnType<typeof vi.fn<typeof fetch>>;
const posted = () => network.mock.calls.map(([, init]) => JSON.parse(String(init?.body)));
const mutations = () => new Promise((resolve) => setTimeout(resolve));
const host = () => document.querySelector("quittance-banner");
const inside = (selector: string) => host()?.shadowRoot?.querySelector<HTMLElement>(selector);
const banner = () => inside("[role=region]");

let quittance: Quittance;
let changes: Change[];
const heard = (event: Event) => changes.push((event as CustomEvent<Change>).detail);

/** What a page leaves behind would answer for the next one in the same document. */
const undo: (() => void)[] = [];
const leave = () => {
  for (const step of undo.splice(0)) step();
};

function visit(config: Config = site()): void {
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
  Reflect.deleteProperty(window, "quittance");
  document.body.replaceChildren(document.createElement("main"));
  quittance = start(config);
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
    expect(changes).toEqual([{ method, choices: { necessary: true, ...choices } }]);
    visit();
    expect(banner()).toBeNull();
    expect(quittance.has("analytics")).toBe(value);
    expect(changes).toHaveLength(1);
  });

  it("asks again when the notice changed", () => {
    visit();
    quittance.accept();
    visit(site({ notice_version: "8" }));
    expect(banner()).not.toBeNull();
    expect(quittance.has("analytics")).toBe(false);
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
  expect((host() as HTMLElement).dataset.position).toBeUndefined();
  visit(site({ theme: { accent: "#1f5fae", position: "center", radius: 0 } }));
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
  expect(inside("dialog")).not.toBeNull();
  expect(inside("dialog .gpc")).toBeNull();
});

it("follows a choice made in another tab without recording it twice", () => {
  visit();
  const stored = decision({ decidedAt: Date.now() });
  localStorage.setItem("qt_shop", encode(stored));
  window.dispatchEvent(new StorageEvent("storage", { key: "qt_shop" }));
  expect(quittance.has("analytics")).toBe(true);
  expect(banner()).toBeNull();
  expect(network).not.toHaveBeenCalled();
  expect(changes).toHaveLength(1);
});

it("gives a held back frame two ways in", async () => {
  visit();
  const frame = document.createElement("iframe");
  frame.dataset.purpose = "advertising";
  frame.dataset.src = "/video";
  document.body.append(frame);
  await mutations();
  const placeholder = document.querySelector("quittance-placeholder")?.shadowRoot;
  expect(placeholder?.textContent).toContain("Needs The advertising.");
  placeholder?.querySelector<HTMLElement>("[data-action=once]")?.click();
  expect(frame.getAttribute("src")).toBe("/video");
  expect(quittance.has("advertising")).toBe(false);
  expect(network).not.toHaveBeenCalled();
});

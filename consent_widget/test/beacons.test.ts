import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Config, Tracker } from "../src/config";
import * as dialog from "../src/dialog";
import { type Module, type Quittance, start } from "../src/main";
import * as counts from "../src/modules/counts";
import * as report from "../src/modules/report";
import { encode } from "../src/storage";
import { decision, site, usSite } from "./fixtures";
import names from "./names.json";

const network = vi.fn();
let quittance: Quittance;

function visit(config: Config, module: Module): void {
  Reflect.deleteProperty(window, "quittance");
  quittance = start(config, [module], async () => dialog);
}

const later = () => new Promise((resolve) => setTimeout(resolve, 5));
const leave = () => window.dispatchEvent(new Event("pagehide"));
const sent = (what: string) =>
  network.mock.calls
    .filter(([url]) => url === `https://privacy.example/b/shop/${what}`)
    .map(([, { body, ...options }]) => [JSON.parse(body), options]);

function loaded(...hosts: string[]): void {
  const entries = hosts.map((host) => ({ name: `https://${host}/a.js?u=bob` }));
  vi.stubGlobal("performance", { getEntriesByType: () => entries });
}

beforeEach(() => {
  network.mockReset().mockRejectedValue(new TypeError("offline"));
  vi.stubGlobal("fetch", network);
  localStorage.clear();
  sessionStorage.clear();
  for (const pair of document.cookie.split("; "))
    document.cookie = `${pair.split("=")[0]}=; Path=/; Max-Age=0`;
  document.body.replaceChildren();
  history.replaceState(null, "", "/cart");
  HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
    this.open = true;
  };
  loaded();
});
afterEach(() => {
  leave(); // whoever still listens to this page
  vi.unstubAllGlobals();
});

describe("counting displays", () => {
  it("tells once of a banner that was shown, without anything about the visitor", async () => {
    visit(usSite(), counts);
    await later();
    quittance.accept();
    await quittance.open();
    await later();
    const [[body, options], ...more] = sent("shown") as [[object, object], ...unknown[]];
    expect(body).toEqual({ notice_version: "7", language: "en", regime: "ccpa" });
    expect(options).toMatchObject({ method: "POST", credentials: "omit", keepalive: true });
    expect(more).toEqual([]);
  });

  it.each([
    ["somebody chose before", site(), true],
    ["the signal is honoured, and a notice says so", usSite({ gpc: true }), false],
    ["the law needs no banner", usSite({ shown: false }), false],
  ])("tells nothing where %s, also when the dialog is opened", async (_, config, chosen) => {
    if (chosen) localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() - 1000 })));
    visit(config, counts);
    await later();
    await quittance.open();
    await later();
    expect(sent("shown")).toEqual([]);
  });
});

describe("reporting what has no rule", () => {
  const rule = (kind: Tracker["kind"], pattern: string): Tracker => ({
    kind,
    pattern,
    purpose: "analytics",
    http_only: false,
  });

  it.each(names)("sends %s as %s", (name, pattern) => {
    expect(report.reduced(name as string)).toBe(pattern);
  });

  it("names hosts, cookies and keys, and leaves out values, rules and what is its own", () => {
    loaded("shop.example", "cdn.shop.example", "privacy.example", "ads.example", "a.known.example");
    for (const name of ["_ga", "_fbp", "qt_other", "_ga_G1ABC2DEF"])
      document.cookie = `${name}=secret; Path=/`;
    localStorage.setItem("qt_shop_q", "[]");
    localStorage.setItem("uid_5f0c1d5e8f0a", "bob");
    sessionStorage.setItem("bob@shop.example", "1");
    const trackers = [rule("cookie", "_ga"), rule("host", "*.known.example"), rule("host", "_fbp")];
    expect(report.unruled(site({ trackers }))).toEqual({
      host: ["ads.example"],
      cookie: ["_fbp", "_ga_*"],
      storage: ["uid_*"],
    });
  });

  it("names each once and at most fifty", () => {
    for (let number = 0; number < 60; number++) {
      localStorage.setItem(`key_${"x".repeat(number)}`, "1");
      localStorage.setItem(`basket_${100_000 + number}`, "1");
    }
    const { storage } = report.unruled(site());
    expect(storage).toHaveLength(50);
    expect(storage.filter((name) => name.startsWith("basket_"))).toEqual(["basket_*"]);
  });

  it("gives up quietly where storage is blocked", () => {
    vi.spyOn(window, "localStorage", "get").mockImplementation(() => {
      throw new DOMException("denied", "SecurityError");
    });
    expect(report.unruled(site()).storage).toEqual([]);
  });

  it("is sent once, when the page is left, and from a page that asks for it always", () => {
    vi.spyOn(Math, "random").mockReturnValue(0.99);
    history.replaceState(null, "", "/cart?quittance-report");
    document.cookie = "_fbp=1; Path=/";
    visit(site(), report);
    expect(sent("seen")).toEqual([]);
    leave();
    leave();
    const [[body, options], ...more] = sent("seen") as [[object, object], ...unknown[]];
    expect(body).toEqual({ host: [], cookie: ["_fbp"], storage: [] });
    expect(options).toMatchObject({ credentials: "omit", keepalive: true });
    expect(more).toEqual([]);
  });

  it.each([
    [0.05, 1],
    [0.1, 0],
  ])("of other pages one in ten reports: at %s, %s", (chance, count) => {
    vi.spyOn(Math, "random").mockReturnValue(chance);
    document.cookie = "_fbp=1; Path=/";
    visit(site(), report);
    leave();
    expect(sent("seen")).toHaveLength(count);
  });

  it("sends nothing where there is nothing to tell", () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    visit(site(), report);
    leave();
    expect(sent("seen")).toEqual([]);
  });
});

import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Quittance } from "../types";

const SHOP = { service: "https://privacy.example", siteKey: "site_1" };
const tags = () => [...document.querySelectorAll("script")];
/** The browser has run the newest tag's script, or could not have it. */
const ends = (event: "load" | "error") => tags().at(-1)?.dispatchEvent(new Event(event));
const isThere = () => {
  const quittance = { withdraw: () => {} } as Quittance;
  Object.defineProperty(window, "quittance", { value: quittance, configurable: true });
  return quittance;
};

let load: typeof import("../src/npm").load;

beforeEach(async () => {
  document.head.replaceChildren();
  Reflect.deleteProperty(window, "quittance");
  vi.resetModules();
  ({ load } = await import("../src/npm"));
});

describe("load", () => {
  it("puts one tag into the page, however often it is called", async () => {
    const both = [load(SHOP), load(SHOP)];
    expect(tags().map(({ src }) => src)).toEqual(["https://privacy.example/b/site_1.js"]);
    const quittance = isThere();
    ends("load");
    expect(await Promise.all(both)).toEqual([quittance, quittance]);
  });

  it("takes the banner that the page has already", async () => {
    const quittance = isThere();
    expect(await load(SHOP)).toBe(quittance);
    expect(tags()).toEqual([]);
  });

  it("carries the nonce, the wishes and the mark of a page with its own banner", () => {
    const more = { nonce: "c2hvcA", language: "de", region: "US-CA", headless: true };
    void load({ service: "https://shop.example/privacy/", siteKey: "a&b", ...more });
    const [tag] = tags();
    expect(tag?.src).toBe("https://shop.example/privacy/b/a%26b.js?lang=de&region=US-CA");
    expect(tag?.nonce).toBe("c2hvcA");
    expect(tag?.hasAttribute("data-headless")).toBe(true);
  });

  it("says what to look at when the script cannot be had, and tries again when asked again", async () => {
    const first = load(SHOP);
    ends("error");
    await expect(first).rejects.toThrow(/privacy\.example\/b\/site_1\.js could not be loaded/);
    expect(tags()).toEqual([]);
    const second = load(SHOP);
    const quittance = isThere();
    ends("load");
    expect(await second).toBe(quittance);
  });

  it("is not content with a script that starts no banner", async () => {
    const coming = load(SHOP);
    document.body.innerHTML = '<p id="quittance"></p>';
    ends("load");
    await expect(coming).rejects.toThrow("is not the script of a banner");
  });

  it.each(["", "privacy.example", "javascript:alert(1)//", "data:text/javascript,alert(1)//"])(
    "runs nothing from %j",
    async (service) => {
      await expect(load({ ...SHOP, service })).rejects.toThrow("http(s)");
      expect(tags()).toEqual([]);
    },
  );
});

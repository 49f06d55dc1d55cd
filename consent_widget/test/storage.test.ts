import { beforeEach, describe, expect, it, vi } from "vitest";
import { decode, encode, load, save, sharedDomain } from "../src/storage";
import { decision, NOW, VISITOR } from "./fixtures";

const blocked = () => {
  throw new DOMException("denied", "SecurityError");
};

const SHOP = { site_key: "shop", expiry_days: 180 };

beforeEach(() => {
  localStorage.clear();
  document.cookie = "qt_shop=; Path=/; Max-Age=0; Secure";
});

describe("the stored line", () => {
  it("comes back as it went, and is short", () => {
    expect(decode(encode(decision()))).toEqual(decision());
    expect(encode(decision()).length).toBeLessThan(140);
  });

  it("holds ids and notices with any character", () => {
    const odd = decision({ notice: "a|b;c=d é", choices: { "+x:|,;": true, "-": false } });
    expect(decode(encode(odd))).toEqual(odd);
    expect(encode(odd)).toMatch(/^[!#-+\--:<-[\]-~]+$/);
  });

  it("of a page of before is still read", () => {
    const line = `1|o|7|${VISITOR}|${NOW}|custom|+analytics:-advertising|con_1`;
    expect(decode(line)).toEqual({
      mode: "opt_out",
      notice: "7",
      material: "",
      gpc: false,
      visitorId: VISITOR,
      decidedAt: NOW,
      method: "custom",
      choices: { analytics: true, advertising: false },
      consentId: "con_1",
    });
  });

  it.each(["opt_in", "opt_out", "notice"] as const)(
    "tells %s, with and without the signal",
    (mode) => {
      for (const gpc of [true, false])
        expect(decode(encode(decision({ mode, gpc })))).toMatchObject({ mode, gpc });
    },
  );

  it("keeps an undecided record id and an empty choice apart from a broken line", () => {
    const bare = decision({ consentId: null, choices: {} });
    expect(decode(encode(bare))).toEqual(bare);
  });

  it.each([
    ["nothing", ""],
    ["another format", encode(decision()).replace(/^2/, "3")],
    ["an older format with a newer field", encode(decision()).replace(/^2/, "1")],
    ["an unknown mode", encode(decision()).replace("|i|", "|x|")],
    ["a field too many", `${encode(decision())}|x`],
    ["JSON", '{"analytics":true}'],
    ["a cut line", encode(decision()).slice(0, 60)],
    ["a broken percent sequence", encode(decision()).replace("analytics", "%E0%A4%A")],
    ["no uuid", encode(decision()).replace(VISITOR, "<script>")],
    ["no number", encode(decision()).replace(/\|\d{9,}\|/, "|1e9|")],
    ["an unknown method", encode(decision()).replace("custom", "constructor")],
    ["an unmarked purpose", encode(decision()).replace("+analytics", "analytics")],
  ])("is no decision when it is %s", (_, line) => {
    expect(decode(line)).toBeNull();
  });

  it("gives `__proto__` no power", () => {
    const line = encode(decision()).replace("+analytics", "+__proto__");
    const { choices } = decode(line) ?? decision();
    expect(Object.getPrototypeOf(choices)).toBe(Object.prototype);
    expect(Object.hasOwn(choices, "__proto__")).toBe(true);
    expect(({} as Record<string, unknown>).analytics).toBeUndefined();
  });
});

describe("loading", () => {
  it("finds what was saved, in cookie and mirror", () => {
    save(SHOP, decision({ decidedAt: Date.now() }));
    expect(document.cookie).toContain("qt_shop=2|i|7|");
    expect(localStorage.getItem("qt_shop")).toContain("+analytics");
    expect(load("shop")?.choices.analytics).toBe(true);
    expect(load("sho")).toBeNull();
  });

  it("takes the newer of the two and ignores a broken one", () => {
    const later = decision({ decidedAt: Date.now(), method: "withdrawal" });
    save(SHOP, decision({ decidedAt: Date.now() - 5000 }));
    localStorage.setItem("qt_shop", encode(later));
    expect(load("shop")?.method).toBe("withdrawal");
    localStorage.setItem("qt_shop", "rubbish");
    expect(load("shop")?.method).toBe("custom");
  });

  it("works with either store blocked and gives up quietly with both", () => {
    save(SHOP, decision({ decidedAt: Date.now() }));
    const cookie = vi.spyOn(Document.prototype, "cookie", "get").mockImplementation(blocked);
    vi.spyOn(Document.prototype, "cookie", "set").mockImplementation(blocked);
    expect(load("shop")).not.toBeNull();
    vi.spyOn(Storage.prototype, "getItem").mockImplementation(blocked);
    vi.spyOn(Storage.prototype, "setItem").mockImplementation(blocked);
    expect(load("shop")).toBeNull();
    expect(() => save(SHOP, decision())).not.toThrow();
    cookie.mockRestore();
    expect(load("shop")).not.toBeNull();
  });

  it("reads cookies though an element is named `cookie`", () => {
    save(SHOP, decision({ decidedAt: Date.now() }));
    localStorage.clear();
    Object.defineProperty(document, "cookie", { value: "<img>", configurable: true });
    try {
      expect(load("shop")).not.toBeNull();
    } finally {
      Reflect.deleteProperty(document, "cookie");
    }
  });
});

describe("the cookie's age", () => {
  const age = (config: Parameters<typeof save>[0], days: number): number => {
    const write = vi.spyOn(Document.prototype, "cookie", "set");
    save(config, decision({ decidedAt: Date.now() - days * 86_400_000, consentId: null }));
    const [, seconds] = /Max-Age=(-?\d+);/.exec(String(write.mock.calls[0]?.[0])) ?? [];
    write.mockRestore();
    return Number(seconds) / 86_400;
  };

  it.each([
    ["the choice's term", {}, 100, 80],
    ["as long as nobody asks again", { reask_after_days: 366 }, 100, 266],
    ["the longer of the two", { reask_after_days: 100 }, 0, 180],
  ])("is %s", (_, config, days, left) => {
    expect(age({ ...SHOP, ...config }, days)).toBeCloseTo(left, 3);
  });

  it("takes away what has ended", () => {
    save(SHOP, decision({ decidedAt: Date.now() }));
    save(SHOP, decision({ decidedAt: Date.now() - 181 * 86_400_000 }));
    expect(document.cookie).not.toContain("qt_shop");
  });
});

describe("the cookie of the site's own host", () => {
  it("is left as it is while it says the same", () => {
    const same = decision({ decidedAt: Date.now() });
    save(SHOP, same);
    const write = vi.spyOn(Document.prototype, "cookie", "set");
    localStorage.clear();
    save(SHOP, same);
    expect(write).not.toHaveBeenCalled();
    expect(localStorage.getItem("qt_shop")).toBe(encode(same));
    save(SHOP, { ...same, consentId: "con_2" });
    expect(write).toHaveBeenCalledOnce();
  });

  it.each([
    [undefined, "shop.example", ""],
    ["https://shop.example/consent", "shop.example", ""],
    ["https://privacy.shop.example", "shop.example", "shop.example"],
    ["https://privacy.shop.example", "www.shop.example", "shop.example"],
    ["https://privacy.other.example", "shop.example", ""],
  ])("%s beside %s shares %s", (firstParty, host, shared) => {
    expect(sharedDomain(firstParty, host)).toBe(shared);
  });
});

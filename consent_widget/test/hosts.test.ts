import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { createGate, type Gate } from "../src/gate";
import { isHost } from "../src/hosts";
import type { Quittance } from "../src/main";
import { install } from "../src/modules/hosts";
import { site } from "./fixtures";

it.each([
  ["stats.example", "stats.example", true],
  ["stats.example", "www.stats.example", false],
  ["*.stats.example", "stats.example", true],
  ["*.stats.example", "a.b.stats.example", true],
  ["*.stats.example", "evilstats.example", false],
])("the rule %s means %s: %s", (pattern, host, expected) => {
  expect(isHost(pattern, host)).toBe(expected);
});

const ADS = "https://ads.example";
const granted = new Set<string>();
let tellChange: () => void = () => {};
const mutations = () => new Promise((resolve) => setTimeout(resolve));
const find = (selector: string): HTMLElement => {
  const found = document.querySelector<HTMLElement>(selector);
  if (!found) throw new Error(`no ${selector}`);
  return found;
};
const live = () => [...document.scripts].filter(({ type }) => type !== "text/plain");
const page = (markup: string): void => {
  document.body.replaceChildren(document.createRange().createContextualFragment(markup));
};
const gate: Gate = createGate({
  allows: (purposes) => purposes.length > 0 && purposes.every((each) => granted.has(each)),
});

function change(isGranted: boolean): void {
  if (isGranted) granted.add("ads");
  else granted.delete("ads");
  tellChange();
  gate.sync();
}

// What it changes of the page's prototypes stays, so it is installed once.
beforeAll(() => {
  page(`<iframe src="${ADS}/before"></iframe><script src="${ADS}/before.js"></script>`);
  const quittance = {
    has: (purpose: string) => granted.has(purpose),
    on: (_: string, listener: () => void) => {
      tellChange = listener;
    },
  } as unknown as Quittance;
  const rule = { kind: "host", pattern: "ads.example", purpose: "ads", http_only: false } as const;
  install(quittance, site({ trackers: [rule] }), gate);
});
beforeEach(() => {
  vi.spyOn(document, "readyState", "get").mockReturnValue("loading");
  granted.clear();
});
afterEach(() => vi.restoreAllMocks());

describe("a host with a rule", () => {
  it("loses the frames that are there, and its scripts count as run", () => {
    expect(find("iframe").hasAttribute("src")).toBe(false);
    expect(find("iframe").dataset).toMatchObject({ purpose: "ads", src: `${ADS}/before` });
    expect(gate.hasRun("ads")).toBe(true);
  });

  it("has what the parser meets held back, until it is granted", async () => {
    page(
      `<iframe src="${ADS}/f"></iframe><img src="${ADS}/i"><link rel="stylesheet" href="${ADS}/l">` +
        `<iframe class="other" src="https://other.example/f"></iframe><script src="${ADS}/s.js"></script>`,
    );
    await mutations();
    for (const tag of ["iframe", "img"]) expect(find(tag).hasAttribute("src")).toBe(false);
    expect(find("link").hasAttribute("href")).toBe(false);
    expect(find(".other").getAttribute("src")).toBe("https://other.example/f");
    expect(live()).toEqual([]);
    change(true);
    await mutations();
    expect(find("iframe").getAttribute("src")).toBe(`${ADS}/f`);
    expect(find("img").getAttribute("src")).toBe(`${ADS}/i`);
    expect(find("link").getAttribute("href")).toBe(`${ADS}/l`);
    expect(live().map(({ src }) => src)).toEqual([`${ADS}/s.js`]);
  });

  it.each([
    [
      "src",
      (made: HTMLScriptElement) => {
        made.src = `${ADS}/s.js`;
      },
    ],
    [
      "src, then a type",
      (made: HTMLScriptElement) => {
        made.src = `${ADS}/s.js`;
        made.type = "text/javascript";
      },
    ],
    [
      "an attribute",
      (made: HTMLScriptElement) => {
        made.setAttribute("SRC", `${ADS}/s.js`);
        made.setAttribute("type", "text/javascript");
      },
    ],
  ])("has a script that a script makes held back before it is in the page: %s", async (_, give) => {
    page("");
    const made = document.createElement("script");
    const heard = vi.fn();
    made.addEventListener("load", heard);
    made.async = true;
    give(made);
    expect(made.hasAttribute("src")).toBe(false);
    document.body.append(made);
    await mutations();
    expect(live()).toEqual([]);
    change(true);
    expect(live().map(({ src }) => src)).toEqual([`${ADS}/s.js`]);
    await mutations();
    live()[0]?.dispatchEvent(new Event("load"));
    expect(heard).toHaveBeenCalledOnce();
  });

  it("has a module held back as one", async () => {
    page("");
    const made = document.createElement("script");
    made.src = `${ADS}/m.js`;
    made.type = "module";
    document.body.append(made);
    change(true);
    await mutations();
    expect(live().map(({ type, src }) => [type, src])).toEqual([["module", `${ADS}/m.js`]]);
  });

  it("has no image loaded that is never in the page, nor an address given later", async () => {
    const beacon = new Image();
    beacon.src = `${ADS}/i`;
    expect(beacon.hasAttribute("src")).toBe(false);
    page("<iframe></iframe>");
    (find("iframe") as HTMLIFrameElement).src = `${ADS}/f`;
    expect(find("iframe").hasAttribute("src")).toBe(false);
    change(true);
    expect(find("iframe").getAttribute("src")).toBe(`${ADS}/f`);
  });

  it("loads when it is granted, and loses its frames with the grant", async () => {
    change(true);
    page("<iframe></iframe>");
    const frame = find("iframe") as HTMLIFrameElement;
    frame.src = `${ADS}/f`;
    expect(frame.getAttribute("src")).toBe(`${ADS}/f`);
    change(false);
    expect(find("iframe")).toBe(frame); // the page may know it
    expect(frame.hasAttribute("src")).toBe(false);
    change(true);
    expect(find("iframe").getAttribute("src")).toBe(`${ADS}/f`);
  });

  it.each([
    [
      "another address",
      (frame: HTMLIFrameElement) => {
        frame.src = "https://other.example/f";
      },
    ],
    ["none", (frame: HTMLIFrameElement) => frame.removeAttribute("src")],
  ])("lets go of a frame that the page gives %s", async (_, give) => {
    page(`<iframe src="${ADS}/f"></iframe>`);
    await mutations();
    const frame = find("iframe") as HTMLIFrameElement;
    give(frame);
    expect({ ...frame.dataset }).toEqual({});
    const now = frame.getAttribute("src");
    change(true);
    await mutations();
    expect(frame.getAttribute("src")).toBe(now);
  });

  it("has no script run twice that began before it could be held", async () => {
    page("");
    vi.spyOn(document, "readyState", "get").mockReturnValue("complete");
    page(`<script src="${ADS}/copied.js"></script>`);
    await mutations();
    const [began] = live();
    expect(began).toBeDefined();
    change(true);
    expect(live()).toEqual([began]);
  });

  it("leaves alone what a frame that was opened by hand shows", async () => {
    page(`<iframe src="${ADS}/f"></iframe>`);
    await mutations();
    gate.open(find("iframe"));
    expect(find("iframe").getAttribute("src")).toBe(`${ADS}/f`);
    gate.sync();
    await mutations();
    expect(find("iframe").getAttribute("src")).toBe(`${ADS}/f`);
  });
});

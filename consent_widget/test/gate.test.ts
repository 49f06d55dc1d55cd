import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createGate, type Gate, type GateOptions } from "../src/gate";

let gate: Gate;
let allowed: Set<string>;

function watch(options: Partial<GateOptions> = {}): void {
  gate = createGate({
    allows: (purposes) => purposes.length > 0 && purposes.every((id) => allowed.has(id)),
    ...options,
  });
  gate.sync();
}

function grant(...purposes: string[]): void {
  for (const purpose of purposes) allowed.add(purpose);
  gate.sync();
}

/** Test pages are written as markup here; the widget itself never does that. */
const page = (markup: string): void => {
  document.body.replaceChildren(document.createRange().createContextualFragment(markup));
};

const scripts = () => [...document.querySelectorAll("script")];
const live = () => scripts().filter((script) => script.type !== "text/plain");
const find = (selector: string) => {
  const element = document.querySelector(selector);
  if (!element) throw new Error(`no ${selector}`);
  return element;
};
const mutations = () => new Promise((resolve) => setTimeout(resolve));

beforeEach(() => {
  allowed = new Set();
  page("");
});
afterEach(() => gate.disconnect());

describe("scripts", () => {
  it("stay inert until their purpose is granted, then run once", () => {
    page('<script type="text/plain" data-purpose="analytics">window.ran = 1</script>');
    watch();
    expect(live()).toEqual([]);
    grant("analytics");
    expect(live()).toHaveLength(1);
    const [script] = live();
    gate.sync();
    expect(live()).toEqual([script]);
    expect(script?.text).toBe("window.ran = 1");
  });

  it("need no nonce when a script of the page has made them", () => {
    page(
      '<script id="a" type="text/plain" data-purpose="analytics">window.a = 1</script>' +
        '<script id="b" type="text/plain" data-purpose="analytics">window.b = 1</script>',
    );
    watch({ nonce: "n" });
    gate.vouch(find("#b"));
    grant("analytics");
    expect(live().map(({ id }) => id)).toEqual(["b"]);
  });

  it("carry their attributes and nonce, but not the marks that held them back", () => {
    page(
      '<script type="text/plain" data-purpose="analytics" data-src="/a.js" data-type="module"' +
        ' id="a" crossorigin="anonymous" integrity="sha256-x" data-id="7" nonce="n"></script>',
    );
    watch();
    grant("analytics");
    const script = find("#a") as HTMLScriptElement;
    expect(
      Object.fromEntries([...script.attributes].map((each) => [each.name, each.value])),
    ).toEqual(
      expect.objectContaining({
        "data-purpose": "analytics",
        "data-id": "7",
        crossorigin: "anonymous",
        integrity: "sha256-x",
        type: "module",
        src: "/a.js",
      }),
    );
    expect(script.hasAttribute("data-src")).toBe(false);
    expect(script.nonce).toBe("n");
    expect(script.async).toBe(false);
  });

  it("keep their order: an inline script waits for the files before it", () => {
    page(
      '<script type="text/plain" data-purpose="analytics" data-src="/1.js"></script>' +
        '<script type="text/plain" data-purpose="analytics" data-src="/2.js"></script>' +
        '<script type="text/plain" data-purpose="analytics" id="inline">3</script>' +
        '<script type="text/plain" data-purpose="analytics" data-src="/4.js"></script>' +
        '<script type="text/plain" data-purpose="analytics" data-src="/5.js" async></script>',
    );
    watch();
    grant("analytics");
    const sources = () => live().map((script) => script.getAttribute("src"));
    expect(sources()).toEqual(["/1.js", "/2.js", "/5.js"]);
    live()[0]?.dispatchEvent(new Event("load"));
    expect(sources()).toEqual(["/1.js", "/2.js", "/5.js"]);
    live()[1]?.dispatchEvent(new Event("error"));
    expect(sources()).toEqual(["/1.js", "/2.js", null, "/4.js", "/5.js"]);
  });

  it("that still wait when consent goes do not run, and may run later", () => {
    page(
      '<script type="text/plain" data-purpose="analytics" data-src="/1.js"></script>' +
        '<script type="text/plain" data-purpose="analytics">2</script>',
    );
    watch();
    grant("analytics");
    allowed.clear();
    live()[0]?.dispatchEvent(new Event("load"));
    expect(live()).toHaveLength(1);
    grant("analytics");
    expect(live()).toHaveLength(2);
  });

  it("need every purpose they name, and one at least", () => {
    page(
      '<script type="text/plain" data-purpose="analytics advertising">1</script>' +
        '<script type="text/plain" data-purpose="">2</script>' +
        '<script type="text/plain" data-purpose="toString">3</script>',
    );
    watch();
    grant("analytics");
    expect(live()).toEqual([]);
    grant("advertising");
    expect(live().map((script) => script.text)).toEqual(["1"]);
  });

  it("without the widget's nonce are refused on a page that uses nonces", () => {
    const warn = vi.spyOn(console, "warn").mockReturnValue();
    page(
      '<script type="text/plain" data-purpose="analytics">"injected"</script>' +
        '<script type="text/plain" data-purpose="analytics" nonce="n">"own"</script>',
    );
    watch({ nonce: "n" });
    grant("analytics");
    expect(live().map((script) => script.text)).toEqual(['"own"']);
    gate.sync();
    expect(warn).toHaveBeenCalledOnce();
  });

  it.each(["javascript:alert(1)", "data:text/javascript,alert(1)", " JavaScript:alert(1)"])(
    "never load %s",
    (url) => {
      vi.spyOn(console, "warn").mockReturnValue();
      page(
        `<script type="text/plain" data-purpose="analytics" data-src="${url}"></script>` +
          `<iframe data-purpose="analytics" data-src="${url}"></iframe>`,
      );
      watch();
      grant("analytics");
      expect(live()).toEqual([]);
      expect(find("iframe").hasAttribute("src")).toBe(false);
    },
  );
});

describe("frames, images and links", () => {
  it("get their address when granted", () => {
    page(
      '<img data-purpose="analytics" data-src="/p.gif">' +
        '<link rel="stylesheet" data-purpose="analytics" data-href="/f.css">' +
        '<iframe data-purpose="advertising" data-src="/frame"></iframe>',
    );
    watch();
    grant("analytics");
    expect(find("img").getAttribute("src")).toBe("/p.gif");
    expect(find("link").getAttribute("href")).toBe("/f.css");
    expect(find("iframe").hasAttribute("src")).toBe(false);
  });

  it("a held back frame has one stand-in, gone when it opens", () => {
    page('<p><iframe data-purpose="advertising" data-src="/frame"></iframe></p>');
    const placeholder = vi.fn(() => document.createElement("aside"));
    watch({ placeholder });
    gate.sync();
    const frame = find("iframe") as HTMLIFrameElement;
    expect(placeholder).toHaveBeenCalledExactlyOnceWith(frame, ["advertising"]);
    expect(frame.hidden).toBe(true);
    expect(frame.previousElementSibling?.localName).toBe("aside");
    gate.open(frame);
    expect(frame.hidden).toBe(false);
    expect(frame.getAttribute("src")).toBe("/frame");
    expect(document.querySelector("aside")).toBeNull();
  });

  it("a frame that the page takes away takes its stand-in along", async () => {
    page('<p><iframe data-purpose="advertising" data-src="/frame"></iframe></p>');
    watch({ placeholder: () => document.createElement("aside") });
    find("iframe").remove();
    await mutations();
    expect(document.querySelector("aside")).toBeNull();
  });
});

describe("elements that arrive late", () => {
  it("are opened when their purpose is granted already, also deep inside", async () => {
    watch();
    grant("analytics");
    const late = document
      .createRange()
      .createContextualFragment(
        '<div><p><script type="text/plain" data-purpose="analytics">1</script></p></div>' +
          '<img data-purpose="analytics" data-src="/late.gif">' +
          '<img data-purpose="advertising" data-src="/never.gif">',
      );
    document.body.append(late);
    await mutations();
    expect(live()).toHaveLength(1);
    expect(find("[data-purpose=analytics][src]").getAttribute("src")).toBe("/late.gif");
    expect(find("[data-purpose=advertising]").hasAttribute("src")).toBe(false);
  });

  it("are found though a form shadows the methods that find them", async () => {
    watch();
    grant("analytics");
    page(
      '<form><input name="querySelectorAll"><input name="matches">' +
        '<img data-purpose="analytics" data-src="/late.gif"></form>',
    );
    await mutations();
    expect(find("img").getAttribute("src")).toBe("/late.gif");
  });
});

describe("tags that run anyway", () => {
  it("run at once, once, and are told the answer and every change of it", () => {
    page('<script type="text/plain" data-purpose="ads" data-load="always">window.ads = 1</script>');
    watch();
    const [script] = live();
    const heard: boolean[] = [];
    script?.addEventListener("quittance:mode", (event) =>
      heard.push((event as CustomEvent<{ granted: boolean }>).detail.granted),
    );
    expect(script?.getAttribute("data-consent")).toBe("denied");
    grant("ads");
    gate.sync();
    expect(script?.getAttribute("data-consent")).toBe("granted");
    allowed.clear();
    gate.sync();
    expect(heard).toEqual([true, false]);
    expect(live()).toEqual([script]);
    expect(gate.hasRun("ads")).toBe(false); // it knows what to do without a reload
  });
});

describe("withdrawal", () => {
  it("takes frames, images and links back, and opens them again later", () => {
    page(
      '<iframe data-purpose="ads" data-src="/f"></iframe><img data-purpose="ads" data-src="/i">' +
        '<link data-purpose="ads" data-href="/l" rel="stylesheet">',
    );
    watch();
    grant("ads");
    const frame = find("iframe");
    allowed.clear();
    gate.sync();
    expect(frame.isConnected).toBe(false); // what it showed goes with it
    expect(find("iframe").getAttribute("src")).toBeNull();
    expect(find("img").getAttribute("src")).toBeNull();
    expect(find("link").getAttribute("href")).toBeNull();
    grant("ads");
    expect(find("iframe").getAttribute("src")).toBe("/f");
    expect(find("link").getAttribute("href")).toBe("/l");
  });

  it("leaves alone what was opened once by hand", () => {
    page('<iframe data-purpose="ads" data-src="/f"></iframe>');
    watch();
    gate.open(find("iframe"));
    gate.sync();
    expect(find("iframe").getAttribute("src")).toBe("/f");
  });

  it("knows whose scripts have run", () => {
    page('<script type="text/plain" data-purpose="ads">window.ads = 1</script>');
    watch();
    expect(gate.hasRun("ads")).toBe(false);
    grant("ads");
    expect(gate.hasRun("ads")).toBe(true);
  });
});

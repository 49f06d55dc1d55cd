/**
 * Holds back what comes from hosts that the site has a rule for, though its elements carry no mark:
 * what scripts make, what the parser meets later, and from now on the frames, images and links that
 * are there. Marked as their author could have marked them, they are the gate's.
 *
 * What has begun cannot be stopped: a script that runs already counts as run. And a browser may ask
 * for what stands in the page's own markup before any script runs; only a mark there prevents that.
 */
import type { Config } from "../config";
import { dispatch, findAll, matches } from "../dom";
import { type Gate, isHttp, sourceName } from "../gate";
import { isHost } from "../hosts";
import type { Quittance } from "../main";

const SOURCED = ["script[src]", "iframe[src]", "img[src]", "link[href]"]
  .map((each) => `${each}:not([data-purpose])`)
  .join();

export function install(quittance: Quittance, { trackers }: Config, gate: Gate): void {
  const rules = (trackers ?? []).filter(({ kind }) => kind === "host");
  const { setAttribute, removeAttribute } = Element.prototype;
  const set = (element: Element, name: string, value: string): void =>
    setAttribute.call(element, name, value);

  function purposeOf(element: Element, url: string): string | undefined {
    const host = isHttp(element, url) && new URL(url, element.baseURI).hostname;
    return host ? rules.find(({ pattern }) => isHost(pattern, host))?.purpose : undefined;
  }

  const isHeld = (element: Element): boolean =>
    element.hasAttribute("data-purpose") && element.hasAttribute(`data-${sourceName(element)}`);

  /** Those that were marked here, not by their author. */
  const held = new WeakSet<Element>();

  /** Takes the mark off again. */
  function release(element: Element): void {
    if (!held.delete(element)) return;
    const type = element.getAttribute("data-type");
    for (const name of ["data-purpose", `data-${sourceName(element)}`, "data-type"])
      element.removeAttribute(name);
    if (element instanceof HTMLScriptElement) set(element, "type", type ?? "");
    gate.release(element);
  }

  /** Keeps an address from an element; false: it may have it. */
  function hold(element: Element, url: string): boolean {
    const purpose = purposeOf(element, url);
    if (!purpose) {
      if (isHeld(element)) release(element);
      return false;
    }
    // A mark without an address: this element is being opened.
    if (quittance.has(purpose) || (element.hasAttribute("data-purpose") && !isHeld(element))) {
      if (element instanceof HTMLScriptElement) gate.noteRun(purpose);
      return false;
    }
    held.add(element);
    const name = sourceName(element);
    set(element, "data-purpose", purpose);
    set(element, `data-${name}`, url);
    removeAttribute.call(element, name);
    if (element instanceof HTMLScriptElement) {
      if (element.type === "module") set(element, "data-type", "module");
      set(element, "type", "text/plain");
    }
    if (element.isConnected) queueMicrotask(gate.sync);
    return true;
  }

  /** A held script stays data, whatever type its maker gives it. */
  function retype(element: Element, type: string): boolean {
    if (!(element instanceof HTMLScriptElement) || !isHeld(element)) return false;
    if (type === "module") set(element, "data-type", type);
    return true;
  }

  function stops(element: Element, name: string, value: string): boolean {
    if (name === "type") return retype(element, value);
    if (name !== sourceName(element) || !hold(element, value)) return false;
    gate.vouch(element);
    return true;
  }

  const { prototype: script } = HTMLScriptElement;
  for (const [owner, name] of [
    [script, "src"],
    [script, "type"],
    [HTMLIFrameElement.prototype, "src"],
    [HTMLImageElement.prototype, "src"],
    [HTMLLinkElement.prototype, "href"],
  ] as const) {
    const own = Object.getOwnPropertyDescriptor(owner, name);
    Object.defineProperty(owner, name, {
      ...own,
      set(this: Element, value: unknown) {
        if (!stops(this, name, String(value))) own?.set?.call(this, value);
      },
    });
  }
  Element.prototype.removeAttribute = function (name: string) {
    if (held.has(this) && name.toLowerCase() === sourceName(this) && !this.hasAttribute(name))
      release(this);
    removeAttribute.call(this, name);
  };
  Element.prototype.setAttribute = function (name: string, value: string) {
    if (
      !/^(src|href|type)$/i.test(name) ||
      !isOurs(this) ||
      !stops(this, name.toLowerCase(), `${value}`)
    )
      setAttribute.call(this, name, value);
  };

  function found(element: Element, hasBegun: boolean): void {
    const url = element.getAttribute(sourceName(element)) ?? "";
    if (hasBegun && element instanceof HTMLScriptElement)
      gate.noteRun(purposeOf(element, url) ?? "");
    else if (hold(element, url) && element instanceof HTMLIFrameElement)
      // Without an address it would stay as it is; the page may know the element, so it stays, too.
      element.contentWindow?.location.replace("about:blank");
  }
  const look = (): void => {
    for (const element of findAll(document, SOURCED)) found(element, true);
  };

  /** Whoever made the script that the gate put another in place of listens at the first one. */
  function stoodInFor(old: Node | undefined, fresh: Node | undefined): void {
    if (!(old instanceof HTMLScriptElement) || !held.has(old) || !fresh) return;
    for (const type of ["load", "error"])
      fresh.addEventListener(type, () => void dispatch(new Event(type), old));
  }

  // What a script wrote into the page, say, had begun when it was seen here.
  document.addEventListener(
    "load",
    ({ target, isTrusted }) => {
      if (!isTrusted || !(target instanceof HTMLScriptElement) || !isHeld(target)) return;
      gate.noteRun(target.getAttribute("data-purpose") ?? "");
      release(target);
    },
    true,
  );
  look();
  quittance.on("change", look);
  new MutationObserver((records) => {
    // Then only a parser's scripts have yet to begin: the others went through `src`.
    const hasBegun = document.readyState !== "loading";
    for (const { addedNodes, removedNodes } of records) {
      stoodInFor(removedNodes[0], addedNodes[0]);
      for (const node of addedNodes) {
        if (!(node instanceof Element)) continue;
        if (matches(node, SOURCED)) found(node, hasBegun);
        for (const inner of findAll(node, SOURCED)) found(inner, hasBegun);
      }
    }
  }).observe(document, { childList: true, subtree: true });
}

const isOurs = (element: Element): boolean => /^(script|iframe|img|link)$/.test(element.localName);

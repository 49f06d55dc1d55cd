/**
 * Holds back scripts, frames, images and links marked with `data-purpose` until their purposes
 * are granted; watches for elements that arrive later.
 */
import { create, findAll, matches } from "./dom";

const BLOCKED =
  'script[type="text/plain"][data-purpose],iframe[data-purpose][data-src],' +
  "img[data-purpose][data-src],link[data-purpose][data-href]";

/** What marks a script as held back, and `nonce`, which is hidden from attributes. */
const MARKS = new Set(["type", "data-type", "data-src", "src", "nonce"]);

export interface GateOptions {
  /** May everything that needs all these purposes run now? */
  allows(purposes: readonly string[]): boolean;
  /** Stands in for a frame that is held back; null leaves its place empty. */
  placeholder?(frame: HTMLIFrameElement, purposes: readonly string[]): Element | null;
  /** The nonce of the widget's own tag; then a gated script must carry the same one. */
  nonce?: string;
}

export interface Gate {
  /** Opens what is allowed by now. */
  sync(): void;
  /** Opens one frame whatever its purposes say. */
  open(frame: Element): void;
  disconnect(): void;
}

interface Policy {
  createScript(text: string): string;
  createScriptURL(url: string): string;
}

let policy: Policy | null | undefined;

/**
 * The page's own markup becomes trusted here and nowhere else. Made on first use, because a page
 * that gates no script may forbid all policies.
 */
function trusted(kind: keyof Policy, value: string): string {
  const types = (window as { trustedTypes?: { createPolicy(name: string, rules: Policy): Policy } })
    .trustedTypes;
  policy ??=
    types?.createPolicy("quittance", {
      createScript: (text) => text,
      createScriptURL: (url) => url,
    }) ?? null;
  return policy ? policy[kind](value) : value;
}

export const purposesOf = (element: Element): string[] =>
  (element.getAttribute("data-purpose") ?? "").split(/\s+/).filter(Boolean);

/** Sanitisers let `data-` attributes pass, so `javascript:` and `data:` stop here. */
export function isHttp(element: Element, url: string): boolean {
  try {
    return /^https?:$/.test(new URL(url, element.baseURI).protocol);
  } catch {
    return false;
  }
}

const sourceOf = (script: HTMLScriptElement): string | null =>
  script.getAttribute("data-src") ?? script.getAttribute("src");

const isAsync = (script: HTMLScriptElement): boolean => script.hasAttribute("async");

/** Browsers run only scripts they have not seen as data, so an equal new one takes the place. */
function recreate(old: HTMLScriptElement): HTMLScriptElement {
  const fresh = create("script");
  for (const { name, value } of [...old.attributes]) {
    if (MARKS.has(name)) continue;
    fresh.setAttribute(name, name.startsWith("on") ? trusted("createScript", value) : value);
  }
  if (old.getAttribute("data-type") === "module") fresh.type = "module";
  if (old.nonce) fresh.nonce = old.nonce;
  const source = sourceOf(old);
  if (source === null) {
    fresh.text = trusted("createScript", old.text);
  } else {
    fresh.async = isAsync(old);
    fresh.src = trusted("createScriptURL", source);
  }
  return fresh;
}

export function createGate({ allows, placeholder, nonce }: GateOptions): Gate {
  const taken = new WeakSet<Element>();
  const standIns = new WeakMap<Element, { element: Element; hidden: boolean }>();
  let queue: HTMLScriptElement[] = [];
  let loading = 0;

  const refuse = (element: Element, why: string): void => {
    taken.add(element);
    console.warn(`quittance: not opened, ${why}`, element);
  };

  function run(script: HTMLScriptElement): void {
    // Consent may have gone, or the page may have dropped it, while it waited.
    if (!script.isConnected || !allows(purposesOf(script))) {
      taken.delete(script);
      return;
    }
    try {
      const fresh = recreate(script);
      if (sourceOf(script) !== null && !isAsync(script)) {
        loading++;
        const settled = (): void => {
          loading--;
          drain();
        };
        fresh.addEventListener("load", settled, { once: true });
        fresh.addEventListener("error", settled, { once: true });
      }
      script.replaceWith(fresh);
    } catch (error) {
      console.error("quittance: a script could not be opened", script, error);
    }
  }

  /** Files load side by side and the browser keeps their order; an inline script waits for them. */
  function drain(): void {
    for (let script = queue[0]; script; script = queue[0]) {
      if (loading > 0 && sourceOf(script) === null) return;
      queue = queue.slice(1);
      run(script);
    }
  }

  function openScript(script: HTMLScriptElement): void {
    const source = sourceOf(script);
    if (nonce && script.nonce !== nonce) {
      refuse(script, "its nonce differs from the widget's");
    } else if (source !== null && !isHttp(script, source)) {
      refuse(script, "its address is not http");
    } else {
      taken.add(script);
      if (source !== null && isAsync(script)) run(script);
      else queue.push(script);
    }
  }

  function openInPlace(element: Element): void {
    const attribute = element.localName === "link" ? "href" : "src";
    const url = element.getAttribute(`data-${attribute}`) ?? "";
    if (!isHttp(element, url)) {
      refuse(element, "its address is not http");
      return;
    }
    const standIn = standIns.get(element);
    if (standIn) {
      standIn.element.remove();
      standIns.delete(element);
      (element as HTMLElement).hidden = standIn.hidden;
    }
    // Without data-src the element is no longer one of ours; a frame moved later stays open.
    element.removeAttribute(`data-${attribute}`);
    element.setAttribute(attribute, url);
  }

  function hold(frame: HTMLIFrameElement, purposes: readonly string[]): void {
    if (standIns.has(frame)) return;
    const element = placeholder?.(frame, purposes);
    if (!element) return;
    standIns.set(frame, { element, hidden: frame.hasAttribute("hidden") });
    frame.hidden = true;
    frame.before(element);
  }

  function take(elements: readonly Element[]): void {
    for (const element of elements) {
      if (taken.has(element) || !element.isConnected) continue;
      const purposes = purposesOf(element);
      const allowed = allows(purposes);
      if (!allowed) {
        if (element instanceof HTMLIFrameElement) hold(element, purposes);
      } else if (element instanceof HTMLScriptElement) {
        openScript(element);
      } else {
        openInPlace(element);
      }
    }
    drain();
  }

  const observer = new MutationObserver((records) => {
    const found = new Set<Element>();
    for (const { addedNodes, removedNodes } of records) {
      for (const node of addedNodes) {
        if (!(node instanceof Element)) continue;
        if (matches(node, BLOCKED)) found.add(node);
        for (const inner of findAll(node, BLOCKED)) found.add(inner);
      }
      for (const node of removedNodes) {
        const standIn = node instanceof Element && !node.isConnected && standIns.get(node);
        if (!standIn) continue;
        standIn.element.remove();
        standIns.delete(node as Element);
        (node as HTMLElement).hidden = standIn.hidden;
      }
    }
    if (found.size) take([...found]);
  });
  observer.observe(document, { childList: true, subtree: true });

  return {
    sync: () => take(findAll(document, BLOCKED)),
    open: openInPlace,
    disconnect: () => observer.disconnect(),
  };
}

/**
 * Holds back scripts, frames, images and links marked with `data-purpose` until their purposes are
 * granted; watches for elements that arrive later; takes frames, images and links back when consent
 * is. Those of hosts with a rule are marked by `modules/hosts.ts`.
 */
import { create, dispatch, findAll, matches } from "./dom";

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
  /** Opens what is allowed by now, and closes what no longer is. */
  sync(): void;
  /** Has a script of this purpose run in this page? That cannot be undone without a reload. */
  hasRun(purpose: string): boolean;
  /** One has that did not go through here. */
  noteRun(purpose: string): void;
  /** A script of the page has made this one: no markup, so it needs no nonce. */
  vouch(element: Element): void;
  /** It is none of ours any more; what stands in for it goes. */
  release(element: Element): void;
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

/** A tag that runs in any case and is only told the answer, such as one with a mode of its own. */
const runsAnyway = (element: Element): boolean => element.getAttribute("data-load") === "always";

export const sourceName = (element: Element): "href" | "src" =>
  element.localName === "link" ? "href" : "src";

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
  const vouched = new WeakSet<Element>();
  const opened = new Set<Element>();
  const told = new Map<Element, boolean>();
  const ran = new Set<string>();
  const standIns = new WeakMap<Element, { element: Element; hidden: boolean }>();
  let queue: HTMLScriptElement[] = [];
  let loading = 0;

  const refuse = (element: Element, why: string): void => {
    taken.add(element);
    console.warn(`quittance: not opened, ${why}`, element);
  };

  function run(script: HTMLScriptElement): void {
    // Consent may have gone, or the page may have dropped it, while it waited.
    const purposes = purposesOf(script);
    const allowed = allows(purposes);
    if (!script.isConnected || !(allowed || runsAnyway(script))) {
      taken.delete(script);
      return;
    }
    try {
      const fresh = recreate(script);
      if (runsAnyway(script)) tell(fresh, allowed);
      else for (const each of purposes) ran.add(each);
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
      console.error("quittance: not opened", script, error);
    }
  }

  function tell(script: Element, granted: boolean): void {
    const isNews = told.has(script);
    told.set(script, granted);
    script.setAttribute("data-consent", granted ? "granted" : "denied");
    if (isNews) dispatch(new CustomEvent("quittance:mode", { detail: { granted } }), script);
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
    if (nonce && script.nonce !== nonce && !vouched.has(script)) {
      refuse(script, "its nonce is another");
    } else if (source !== null && !isHttp(script, source)) {
      refuse(script, "its address is not http");
    } else {
      taken.add(script);
      if (source !== null && isAsync(script)) run(script);
      else queue.push(script);
    }
  }

  function unveil(element: Element): void {
    const standIn = standIns.get(element);
    standIn?.element.remove();
    if (standIns.delete(element)) (element as HTMLElement).hidden = standIn?.hidden ?? false;
  }

  function openInPlace(element: Element): void {
    const attribute = sourceName(element);
    const url = element.getAttribute(`data-${attribute}`) ?? "";
    if (!isHttp(element, url)) {
      refuse(element, "its address is not http");
      return;
    }
    unveil(element);
    // Without data-src the element is no longer one of ours; a frame moved later stays open.
    element.removeAttribute(`data-${attribute}`);
    element.setAttribute(attribute, url);
  }

  /** An equal element without a source takes the place: what the old one showed is gone. */
  function close(element: Element): void {
    const attribute = sourceName(element);
    const url = element.getAttribute(attribute);
    const closed = element.cloneNode(false) as Element;
    closed.removeAttribute(attribute);
    if (url !== null) closed.setAttribute(`data-${attribute}`, url);
    element.replaceWith(closed);
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
      if (element instanceof HTMLScriptElement && (allowed || runsAnyway(element))) {
        openScript(element);
      } else if (!allowed) {
        if (element.localName === "iframe") hold(element as HTMLIFrameElement, purposes);
      } else {
        openInPlace(element);
        opened.add(element);
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
        if (node instanceof Element && !node.isConnected) unveil(node);
      }
    }
    if (found.size) take([...found]);
  });
  observer.observe(document, { childList: true, subtree: true });

  return {
    sync() {
      for (const script of told.keys()) {
        if (!script.isConnected) told.delete(script);
        else if (told.get(script) !== allows(purposesOf(script)))
          tell(script, allows(purposesOf(script)));
      }
      for (const element of opened) {
        const isGone = !element.isConnected;
        if (!isGone && allows(purposesOf(element))) continue;
        opened.delete(element);
        if (!isGone) close(element);
      }
      take(findAll(document, BLOCKED));
    },
    hasRun: (purpose) => ran.has(purpose),
    noteRun: (purpose) => void ran.add(purpose),
    vouch: (element) => void vouched.add(element),
    release: unveil,
    open: openInPlace,
    disconnect: () => observer.disconnect(),
  };
}

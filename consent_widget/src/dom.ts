/**
 * The page, reached through prototypes: an element named `cookie`, `body` or `createElement`
 * shadows the document's own member, and a page's markup is not ours to trust.
 */
import type { Config } from "./config";

const getter = <T>(name: "cookie" | "body" | "currentScript" | "documentElement"): (() => T) =>
  Object.getOwnPropertyDescriptor(Document.prototype, name)?.get?.bind(document) as () => T;

/** Every cookie the page may see; a sandboxed page may see none. */
export function readCookies(): string {
  try {
    return getter<string>("cookie")();
  } catch {
    return "";
  }
}

export const cookies = (jar = readCookies()): [name: string, value: string][] =>
  jar
    .split("; ")
    .filter(Boolean)
    .map((pair) => {
      const [name = "", ...value] = pair.split("=");
      return [name, value.join("=")];
    });

/** A sandboxed page may set none: then the choice holds for this page and in the mirror. */
export function writeCookie(value: string): void {
  try {
    Object.getOwnPropertyDescriptor(Document.prototype, "cookie")?.set?.call(document, value);
  } catch {
    // As said.
  }
}

export const body = (): HTMLElement | null => getter<HTMLElement | null>("body")();

/** The tag of the script that runs right now. */
export const ownTag = (): HTMLOrSVGScriptElement | null =>
  getter<HTMLOrSVGScriptElement | null>("currentScript")();

export const findAll = (within: Document | Element, selector: string): Element[] => [
  ...(within === document ? Document : Element).prototype.querySelectorAll.call(within, selector),
];

export const matches = (element: Element, selector: string): boolean =>
  Element.prototype.matches.call(element, selector);

export const create = <K extends keyof HTMLElementTagNameMap>(
  tag: K | string,
): HTMLElementTagNameMap[K] =>
  Document.prototype.createElement.call(document, tag) as HTMLElementTagNameMap[K];

export const dispatch = (event: Event, target: EventTarget = document): boolean =>
  EventTarget.prototype.dispatchEvent.call(target, event);

/** An element with attributes and children; strings become text, never markup. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string>>,
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = create(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const button = (action: string, label: string, run: () => void): HTMLButtonElement => {
  const element = h("button", { type: "button", "data-action": action }, label);
  element.addEventListener("click", run);
  return element;
};

/** Constructable sheets are not inline styles, so they hold under any style policy. */
export function sheet(css: string): CSSStyleSheet {
  const made = new CSSStyleSheet();
  made.replaceSync(css);
  return made;
}

export function shadow(host: HTMLElement, css: string): ShadowRoot {
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [sheet(css)];
  return root;
}

/** The day in the language's own words. English is told day first, as on the service's own pages. */
export function dayOf(moment: number, language: string): string {
  const date = new Date(moment);
  try {
    return date.toLocaleDateString(language === "en" ? "en-GB" : language, { dateStyle: "long" });
  } catch {
    // A language tag this browser does not know: the ISO day is understood everywhere.
    return date.toISOString().slice(0, 10);
  }
}

/** The attributes of whatever holds the site's texts. */
export const inLanguage = ({
  language,
  direction,
}: Pick<Config, "language" | "direction">): { lang: string; dir: string } => ({
  lang: language,
  dir: direction,
});

/** The host element and the banner in it. The dialog is `dialog.ts`. */

import css from "./banner.css?inline";
import base from "./base.css?inline";
import type { Config } from "./config";
import { body, button, create, dayOf, h, inLanguage, shadow } from "./dom";
import { optional, type State, sold } from "./state";

export interface BannerActions {
  accept(): void;
  reject(): void;
  manage(): void;
  /** Somebody is about to press manage. */
  intend(): void;
  close(): void;
}

export interface View {
  readonly root: ShadowRoot;
  /** Puts the host first in the page; also after the page threw its body away. */
  attach(): void;
  render(state: Pick<State, "prompt" | "reason">): void;
  /** The dialog cannot be had: say so, with the banner, which can be answered all the same. */
  fail(): void;
}

/** One label for refusing, wherever it stands: an opt-out law gives it its own name. */
export const rejectLabel = (config: Config): string =>
  sold(config).length ? config.texts.do_not_sell : config.texts.reject;

export const policyLink = ({ policy_url, texts }: Config): HTMLElement[] =>
  policy_url ? [h("a", { href: policy_url, class: "link" }, texts.policy_link)] : [];

function whenBody(run: (body: HTMLElement) => void): void {
  const now = body();
  if (now) {
    run(now);
    return;
  }
  const observer = new MutationObserver(() => {
    const found = body();
    if (!found) return;
    observer.disconnect();
    run(found);
  });
  observer.observe(document, { childList: true, subtree: true });
}

/** What consent is asked for, by name: a choice needs that without another click. */
const askedFor = (config: Config): string =>
  optional(config)
    .map(({ name }) => name)
    .join(" · ");

/** Why somebody who chose before is asked again. */
function because(config: Config, reason: State["reason"]): string | undefined {
  const { texts, language } = config;
  if (reason?.kind === "expired")
    return texts.expired?.replace("{date}", dayOf(reason.decidedAt, language));
  if (reason?.kind !== "changed") return undefined;
  const changes = reason.names.join(", ");
  return changes ? texts.changed?.replace("{changes}", () => changes) : texts.changed_notice;
}

const paragraph = (className: string, text: string | undefined): HTMLElement[] =>
  text ? [h("p", { class: className }, text)] : [];

function banner(
  config: Config,
  { prompt, reason }: Pick<State, "prompt" | "reason">,
  actions: BannerActions,
): HTMLElement {
  const { texts } = config;
  const manage = button("manage", texts.manage, actions.manage);
  manage.className = "link";
  const title = h("h2", {}, texts.title);
  const sentence = prompt === "ask" ? texts.body : texts.gpc_notice;
  const text = h("p", { class: "muted" }, sentence);
  const words = h("div", { class: "words", "aria-live": "polite" }, title, text);
  if (prompt === "ask")
    words.append(
      ...paragraph("changed", because(config, reason)),
      h("p", { class: "purposes" }, askedFor(config)),
    );
  const choices =
    prompt === "ask" && config.mode !== "notice"
      ? [
          button("reject", rejectLabel(config), actions.reject),
          button("accept", texts.accept, actions.accept),
        ]
      : [button("close", (prompt === "ask" && texts.understood) || texts.close, actions.close)];
  // After the banner is on the screen. A live region is read out when it changes, not when it appears.
  setTimeout(() => {
    text.replaceChildren(sentence);
    for (const hint of ["pointerenter", "focus", "touchstart"])
      manage.addEventListener(hint, actions.intend, { once: true, passive: true });
  }, 400);
  return h(
    "section",
    { class: "banner", role: "region", "aria-label": texts.title, ...inLanguage(config) },
    words,
    h("div", { class: "choices" }, ...choices),
    h("div", { class: "more" }, manage, ...policyLink(config)),
  );
}

/** `isHeadless`: without a banner; the dialog comes all the same. */
export function createView(config: Config, actions: BannerActions, isHeadless: boolean): View {
  const host = create("quittance-banner");
  const root = shadow(host, base + css + config.theme.sheet);
  if (config.theme.position === "center") host.dataset.position = "center";
  let shown: HTMLElement | null = null;
  let current: State["prompt"] = null;
  const attach = (): void => {
    if (!host.isConnected) whenBody((page) => page.prepend(host));
  };
  function render(state: Pick<State, "prompt" | "reason">): void {
    if (state.prompt === current) return;
    current = state.prompt;
    shown?.remove();
    shown = current && !isHeadless ? banner(config, state, actions) : null;
    if (shown) root.prepend(shown);
    attach();
  }
  return {
    root,
    attach,
    render,
    fail() {
      if (!current) render({ prompt: "ask", reason: null });
      const words = root.querySelector(".words");
      if (!words?.querySelector("[role=alert]") && config.texts.unavailable)
        words?.append(h("p", { role: "alert" }, config.texts.unavailable));
    },
  };
}

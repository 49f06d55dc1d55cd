/** What stands where a frame is held back: why it is missing, and two ways to load it. */

import base from "./base.css?inline";
import type { Config } from "./config";
import { button, create, h, inLanguage, shadow } from "./dom";
import css from "./placeholder.css?inline";

export interface PlaceholderActions {
  once(): void;
  always(): void;
}

/** Null when a purpose is unknown to the site: no consent could ever open that frame. */
export function createPlaceholder(
  config: Config,
  frame: HTMLIFrameElement,
  purposes: readonly string[],
  actions: PlaceholderActions,
): Element | null {
  const names = purposes.map((id) => config.purposes.find((each) => each.id === id)?.name);
  if (names.length === 0 || names.includes(undefined)) return null;
  const host = create("quittance-placeholder");
  // The frame's own measures, so that the page does not jump when it loads.
  const width = Number.parseInt(frame.getAttribute("width") ?? "", 10);
  const height = Number.parseInt(frame.getAttribute("height") ?? "", 10);
  // Whoever has made it wider by style has room for this, too.
  const most = frame.clientWidth > width ? "" : `max-width:${width}px;`;
  const size = width > 0 && height > 0 ? `:host{${most}aspect-ratio:${width}/${height}}` : "";
  const { texts } = config;
  shadow(host, base + css + size + config.theme.sheet).append(
    h(
      "div",
      {
        class: "frame",
        role: "group",
        "aria-label": frame.title || names.join(", "),
        ...inLanguage(config),
      },
      h("b", {}, names.join(", ")),
      h("p", {}, texts.placeholder),
      h(
        "div",
        { class: "actions" },
        button("once", texts.placeholder_once, actions.once),
        button("always", texts.placeholder_always, actions.always),
      ),
    ),
  );
  return host;
}

/**
 * The site's accent colour, made readable: text on it and it on the page have a contrast of at
 * least 4.5 (WCAG 2.2, 1.4.3), in light and in dark, whatever colour was chosen.
 */
import type { Theme } from "./config";

type Colour = readonly [number, number, number];

const WHITE: Colour = [255, 255, 255];
const BLACK: Colour = [0, 0, 0];
/** `--bg` of base.css under `prefers-color-scheme: dark`. */
const DARK_PAGE: Colour = [26, 32, 41];
const READABLE = 4.5;

/** Anything that is not `#rrggbb` is the default, so no text of the site ends up in a style sheet. */
function parse(accent: unknown): Colour {
  const hex = /^#([0-9a-f]{6})$/i.exec(String(accent))?.[1] ?? "1f5fae";
  const bits = Number.parseInt(hex, 16);
  return [bits >> 16, (bits >> 8) & 255, bits & 255];
}

const written = (colour: Colour): string => `rgb(${colour.join(" ")})`;

function luminance(colour: Colour): number {
  const [red, green, blue] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

export function contrast(one: Colour, other: Colour): number {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

/** The colour itself, or the first step on its way to `end` that can be read on `page`. */
function readable(colour: Colour, page: Colour, end: Colour): Colour {
  for (let step = 0; step < 20; step++) {
    const mixed = colour.map((value, index) =>
      Math.round(value + ((end[index] as number) - value) * (step / 20)),
    ) as unknown as Colour;
    if (contrast(mixed, page) >= READABLE) return mixed;
  }
  return end;
}

export interface Palette {
  /** Behind the labels of buttons. */
  readonly accent: Colour;
  readonly onAccent: Colour;
  /** The accent as text, border and focus ring on the page. */
  readonly ink: Colour;
}

export function palette(accent: unknown, isDark: boolean): Palette {
  const chosen = parse(accent);
  const ink = isDark ? readable(chosen, DARK_PAGE, WHITE) : readable(chosen, WHITE, BLACK);
  const ground = isDark ? ink : chosen;
  // One of the two always passes: they meet at 4.58.
  const onAccent = contrast(ground, WHITE) >= READABLE ? WHITE : BLACK;
  return { accent: ground, onAccent, ink };
}

function properties({ accent, onAccent, ink }: Palette): string {
  const shade = onAccent === WHITE ? "0 0 0" : "255 255 255";
  return (
    `--theme-accent:${written(accent)};--theme-on-accent:${written(onAccent)};` +
    `--theme-ink:${written(ink)};--theme-shade:rgb(${shade}/.16);`
  );
}

/** What the widget's style sheets build on; a page's own `--quittance-...` come before it. */
export function themeSheet(theme?: Theme): string {
  const radius = Number(theme?.radius ?? 8) || 0;
  const light = properties(palette(theme?.accent, false));
  const dark = properties(palette(theme?.accent, true));
  return (
    `:host{--theme-radius:${radius}px;${light}}` +
    `@media(prefers-color-scheme:dark){:host{${dark}}}`
  );
}

import { describe, expect, it } from "vitest";
import { contrast, palette, themeSheet } from "../src/theme";

const PAGES = { light: [255, 255, 255], dark: [26, 32, 41] } as const;
const steps = ["00", "33", "66", "77", "99", "bb", "cc", "ff"];
const accents = steps.flatMap((r) => steps.flatMap((g) => steps.map((b) => `#${r}${g}${b}`)));

describe.each(["light", "dark"] as const)("in %s", (scheme) => {
  it("any accent leaves labels, links and borders readable", () => {
    const worst = { label: 21, link: 21 };
    for (const accent of accents) {
      const { accent: ground, onAccent, ink } = palette(accent, scheme === "dark");
      worst.label = Math.min(worst.label, contrast(ground, onAccent));
      worst.link = Math.min(worst.link, contrast(ink, PAGES[scheme]));
    }
    expect(worst.label).toBeGreaterThanOrEqual(4.5);
    expect(worst.link).toBeGreaterThanOrEqual(4.5);
  });
});

it("leaves an accent that can be read as it is", () => {
  expect(palette("#1F5FAE", false)).toEqual({
    accent: [31, 95, 174],
    onAccent: [255, 255, 255],
    ink: [31, 95, 174],
  });
});

it.each(["red", "}body{display:none}", "url(javascript:alert(1))", "#12345", null])(
  "takes %s for no colour",
  (accent) => {
    expect(palette(accent, false)).toEqual(palette("#1f5fae", false));
  },
);

it("writes numbers only", () => {
  const sheet = themeSheet({
    accent: "expression(alert(1))",
    position: "bottom",
    radius: "0}body{display:none" as unknown as number,
  });
  expect(sheet).toContain("--theme-radius:0px;--theme-accent:rgb(31 95 174)");
  expect(sheet).not.toContain("display");
});

import { expect, it } from "vitest";
import { hasGpc } from "../src/signals";

it.each([
  [true, false, true],
  [undefined, true, true],
  [false, false, false],
  ["1", false, false],
  [1, false, false],
])("navigator %s and header %s mean %s", (globalPrivacyControl, gpc, expected) => {
  expect(hasGpc({ gpc }, { globalPrivacyControl })).toBe(expected);
});

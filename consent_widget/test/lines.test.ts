import { describe, expect, it } from "vitest";
import type { Decision } from "../src/state";
import { decode, encode } from "../src/storage";
import lines from "./lines.json";

/** The service writes the same line (app/consent/cookie.py); its tests read the same file. */
describe("the line that service and widget share", () => {
  it.each(lines.map(({ decision, line }) => ({ decision: decision as Decision, line })))(
    "is $line",
    ({ decision, line }) => {
      expect(encode(decision)).toBe(line);
      expect(decode(line)).toEqual(decision);
    },
  );
});

import { beforeEach, expect, it, vi } from "vitest";
import { start } from "../src/embed";
import { encode } from "../src/storage";
import { decision, site } from "./fixtures";

beforeEach(() => {
  localStorage.clear();
  Reflect.deleteProperty(window, "quittance");
});

it("is there as soon as the script is done, with what was stored", async () => {
  localStorage.setItem("qt_shop", encode(decision({ decidedAt: Date.now() })));
  start(site(), []);
  expect(window).not.toHaveProperty("quittance");
  await Promise.resolve();
  expect(window).toHaveProperty("quittance.decided", true);
});

it("asks all the same where no store can be read", async () => {
  const refuse = () => {
    throw new DOMException("denied", "SecurityError");
  };
  const stored = vi.spyOn(Storage.prototype, "getItem").mockImplementation(refuse);
  const cookie = vi.spyOn(Document.prototype, "cookie", "get").mockImplementation(refuse);
  start(site(), []);
  await Promise.resolve();
  expect(window).toHaveProperty("quittance.visible", true);
  stored.mockRestore();
  cookie.mockRestore();
});

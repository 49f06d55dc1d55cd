import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Config } from "../src/config";
import * as dialog from "../src/dialog";
import type { Quittance } from "../src/main";
import { site, usSite } from "./fixtures";

const network = vi.fn<typeof fetch>();
/** What was sent once nothing goes first any more; the scripts of earlier visits send it, too. */
const posted = () => {
  window.dispatchEvent(new Event("online"));
  const bodies = network.mock.calls.map(([, init]) => JSON.parse(String(init?.body)));
  return [...new Map(bodies.map((body) => [body.event_id, body])).values()];
};
const inside = (selector: string) =>
  document.querySelector("quittance-banner")?.shadowRoot?.querySelector(selector) ?? null;

/** The script runs anew, from a tag with `data-headless`. */
async function visit(config: Config): Promise<Quittance> {
  Reflect.deleteProperty(window, "quittance");
  document.body.replaceChildren();
  const tag = document.createElement("script");
  tag.setAttribute("data-headless", "");
  const current = vi.spyOn(Document.prototype, "currentScript", "get").mockReturnValue(tag);
  vi.resetModules();
  const { start } = await import("../src/main");
  current.mockRestore();
  return start(config, [], async () => dialog);
}

beforeEach(() => {
  localStorage.clear();
  document.cookie = "qt_shop=; Path=/; Max-Age=0; Secure";
  network.mockReset().mockRejectedValue(new TypeError("offline"));
  vi.stubGlobal("fetch", network);
  HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
    this.open = true;
  };
});

afterEach(() => vi.unstubAllGlobals());

it("shows no banner, says that one is called for, and asks nothing twice", async () => {
  const quittance = await visit(site());
  const shown: boolean[] = [];
  quittance.on("display", ({ visible }) => shown.push(visible));
  expect(inside("[role=region]")).toBeNull();
  expect([quittance.visible, quittance.decided]).toEqual([true, false]);
  expect(quittance.has("analytics")).toBe(false);

  quittance.set({ analytics: true });

  expect(shown).toEqual([false]);
  expect(await quittance.settled).toMatchObject({ analytics: true, advertising: false });
  expect(posted()).toEqual([expect.objectContaining({ method: "custom" })]);
  expect((await visit(site())).visible).toBe(false);
});

it("still has the preference dialog", async () => {
  const quittance = await visit(site());
  quittance.accept();
  await quittance.open();
  expect(inside("dialog[open]")).not.toBeNull();
  expect(inside("[role=region]")).toBeNull();
  expect(quittance.visible).toBe(false); // no reason to show the page's banner again
});

it("dismissed without an answer, asks again on the next page", async () => {
  const quittance = await visit(site());
  quittance.dismiss();
  expect([quittance.visible, quittance.decided]).toEqual([false, false]);
  expect(posted()).toEqual([]);
  expect((await visit(site())).visible).toBe(true);
});

it("dismissed where people are only told, records that they were", async () => {
  const quittance = await visit(site({ mode: "notice" }));
  quittance.dismiss();
  expect([quittance.visible, quittance.decided]).toEqual([false, true]);
  expect(posted()).toEqual([expect.objectContaining({ method: "dismissed" })]);
});

it("calls for a notice, not for a question, where the signal was honoured", async () => {
  const quittance = await visit(usSite({ gpc: true }));
  expect([quittance.visible, quittance.decided]).toEqual([true, true]);
  quittance.dismiss();
  expect(quittance.visible).toBe(false);
  expect(posted()).toEqual([expect.objectContaining({ method: "gpc" })]);
});

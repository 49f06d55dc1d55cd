import { beforeEach, describe, expect, it, vi } from "vitest";
import { identify, joined, type Visitor } from "../src/identify";
import { begin, type Decision } from "../src/state";
import { decision, NOW, site, usSite, VISITOR } from "./fixtures";

const OTHER = "0b8e3c1e-8f0a-4c39-9d1e-0a4b5c6d7e8f";
let network: ReturnType<typeof vi.fn<typeof fetch>>;
let visitor: Visitor;
let stored: Decision | null;

const answer = (state: object | null, status = 201) =>
  new Response(JSON.stringify({ identifier_kinds: ["user_id"], added: 1, state }), { status });
const elsewhere = {
  mode: "opt_in",
  choices: { functional: true, analytics: false, advertising: false },
  decided_at: new Date(NOW).toISOString(),
  notice_version: "7",
  consent_id: "con_9",
  source: "other_device",
  stale: false,
};

beforeEach(() => {
  network = vi.fn<typeof fetch>();
  vi.stubGlobal("fetch", network);
  let id = VISITOR;
  stored = null;
  visitor = {
    state: () => begin(site(), { stored, gpc: false, now: NOW, newVisitorId: id }),
    keep: vi.fn(),
    renew: vi.fn(() => {
      id = OTHER;
    }),
  };
});

describe("saying who is signed in", () => {
  it("takes over what the person chose on another device", async () => {
    network.mockResolvedValue(answer(elsewhere));
    await identify(site(), visitor, "token");
    const [address, init] = network.mock.calls[0] ?? [];
    expect(address).toBe("https://privacy.example/v1/visitors/link");
    expect(init).toMatchObject({
      credentials: "omit",
      headers: { Authorization: "Bearer token", "Content-Type": "application/json" },
      body: JSON.stringify({ site_key: "shop", visitor_id: VISITOR }),
    });
    expect(visitor.keep).toHaveBeenCalledWith({
      mode: "opt_in",
      notice: "7",
      material: "m7",
      gpc: false,
      visitorId: VISITOR,
      decidedAt: NOW,
      method: "api",
      choices: elsewhere.choices,
      consentId: "con_9",
    });
  });

  it.each([
    ["nothing is known", null],
    ["this device's choice holds", { ...elsewhere, source: "this_device" }],
  ])("changes nothing when %s", async (_, state) => {
    network.mockResolvedValue(answer(state));
    expect(await identify(site(), visitor, "token")).toBe(true);
    expect(visitor.keep).not.toHaveBeenCalled();
  });

  it("keeps an outdated choice as one that no longer answers", async () => {
    network.mockResolvedValue(answer({ ...elsewhere, stale: true }));
    await identify(site(), visitor, "token");
    expect(visitor.keep).toHaveBeenCalledWith(expect.objectContaining({ material: "-" }));
  });

  it("begins anew with another id where somebody else was signed in before", async () => {
    network.mockResolvedValueOnce(answer(null, 409)).mockResolvedValueOnce(answer(null));
    await identify(site(), visitor, "token");
    expect(visitor.renew).toHaveBeenCalledOnce();
    expect(JSON.parse(String(network.mock.calls[1]?.[1]?.body)).visitor_id).toBe(OTHER);
  });

  it("says so when it was refused", async () => {
    network.mockResolvedValue(answer(null, 401));
    await expect(identify(site(), visitor, "token")).rejects.toThrow("status 401");
  });
});

describe("what the signal denied in another browser of the person", () => {
  const all = { functional: true, analytics: true, advertising: true };
  const signal = (minute: number) => ({
    denied: ["advertising"],
    decided_at: new Date(NOW + minute * 60_000).toISOString(),
    consent_id: "con_s",
  });
  const chosen = (minute: number, more: object = {}) => ({
    ...elsewhere,
    mode: "opt_out",
    choices: all,
    decided_at: new Date(NOW + minute * 60_000).toISOString(),
    ...more,
  });
  /** What a page makes of it that was opened ten minutes after `NOW` with this stored. */
  const page = (stored: Partial<Decision> | null, told: object, config = usSite()) => {
    const mine = stored && decision({ mode: config.mode, ...stored });
    const now = NOW + 600_000;
    const state = begin(config, { stored: mine, gpc: config.gpc, now, newVisitorId: VISITOR });
    const made = joined(config, state, { state: null, ...told } as never);
    return (
      made && {
        ...made,
        holds: begin(config, { stored: made, gpc: config.gpc, now, newVisitorId: VISITOR }).choices,
      }
    );
  };

  it.each(["accept_all", "migrated", "api"] as const)("is denied here after %s", (method) => {
    const stored = { method, choices: all, decidedAt: NOW, consentId: "con_1" };
    expect(page(stored, { signal: signal(1) })).toMatchObject({
      choices: { ...all, advertising: false },
      holds: { analytics: true, advertising: false },
      method,
      consentId: "con_1",
      decidedAt: NOW + 1, // the grants that stay do not live longer for it
    });
  });

  it.each(["dismissed", "migrated", "gpc", "api"] as const)(
    "is denied here also where this browser has a later record (%s) that is no choice made in it",
    (method) => {
      const stored = { method, choices: all, decidedAt: NOW + 120_000 };
      expect(page(stored, { signal: signal(1) })?.holds.advertising).toBe(false);
    },
  );

  it("is denied where nobody has chosen, and nothing else is", () => {
    expect(page(null, { signal: signal(1) })).toMatchObject({
      choices: { advertising: false },
      holds: { functional: true, analytics: true, advertising: false },
      method: "gpc",
      gpc: false,
      consentId: "con_s",
    });
    expect(page(null, { signal: signal(1) }, site())).toBeNull(); // nothing is on
  });

  it("gives way to what was granted here since", () => {
    const stored = { method: "custom", decidedAt: NOW + 120_000 } as const;
    expect(page({ ...stored, choices: all }, { signal: signal(1) })).toBeNull();
    // But not to a choice of something else.
    const limit = { ...stored, choices: { functional: false } };
    expect(page(limit, { signal: signal(1) })?.choices).toEqual({
      functional: false,
      advertising: false,
    });
  });

  it("is denied once: the next page has nothing to add", () => {
    const stored = { method: "accept_all", choices: all, decidedAt: NOW } as const;
    const made = page(stored, { signal: signal(1) });
    expect(page(made, { signal: signal(1) })).toBeNull();
    const answer = { state: chosen(0), signal: signal(1) };
    const taken = page(null, answer);
    expect(taken?.choices).toEqual({ ...all, advertising: false });
    expect(page(taken, answer)).toBeNull();
    expect(page(taken, { state: chosen(2) })?.choices).toEqual(all);
  });

  it("comes on top of what was chosen elsewhere", () => {
    const stored = { method: "dismissed", choices: all, decidedAt: NOW + 240_000 } as const;
    const said = { ...all, analytics: false };
    const made = page(stored, { state: chosen(0, { choices: said }), signal: signal(1) });
    expect(made?.choices).toEqual({ functional: true, analytics: false, advertising: false });
    expect(made?.decidedAt).toBe(NOW + 240_001);
  });
});

describe("what was chosen on another device", () => {
  const all = { functional: true, analytics: true, advertising: true };
  const told = (more: object = {}) => ({ state: { ...elsewhere, mode: "opt_out", ...more } });
  const after = (stored: Partial<Decision>, answer: object, config = usSite()) => {
    const mine = decision({ mode: "opt_out", choices: all, decidedAt: NOW + 1000, ...stored });
    const now = NOW + 600_000;
    const state = begin(config, { stored: mine, gpc: config.gpc, now, newVisitorId: VISITOR });
    return joined(config, state, answer as never);
  };

  it("holds here also where this browser has a later record that is no choice", () => {
    expect(after({ method: "dismissed" }, told())).toMatchObject({
      choices: elsewhere.choices,
      method: "api",
      decidedAt: NOW + 1001,
    });
    expect(after({ method: "accept_all" }, told())).toBeNull();
  });

  it("adds its refusals to what was answered here, once it is outdated", () => {
    const outdated = told({ stale: true, choices: { analytics: false } });
    const made = after({ method: "dismissed" }, outdated);
    expect(made).toMatchObject({
      choices: { ...all, analytics: false },
      method: "dismissed",
      material: "m7",
    });
    expect(made && after(made, outdated)).toBeNull();
  });

  it("leaves its weight to what was said against the signal of this browser", () => {
    const stored = { method: "accept_all", gpc: true, decidedAt: NOW - 1000 } as const;
    const config = usSite({ gpc: true });
    const made = after(stored, told({ choices: { ...all, analytics: false } }), config);
    expect(made).toMatchObject({ gpc: true, method: "accept_all" });
    const now = NOW + 600_000;
    const next = begin(config, { stored: made, gpc: true, now, newVisitorId: VISITOR });
    expect(next.choices).toMatchObject({ analytics: false, advertising: true });
  });
});

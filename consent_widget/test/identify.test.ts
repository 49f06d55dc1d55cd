import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Config } from "../src/config";
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
    current: () => begin(site(), { stored, gpc: false, now: NOW, newVisitorId: id }),
    goOn: vi.fn((found) => {
      if (!found) id = OTHER;
    }),
    load: () => stored,
    save: vi.fn(),
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
    expect(vi.mocked(visitor.save).mock.calls[0]?.[1]).toEqual(
      vi.mocked(visitor.goOn).mock.calls[0]?.[0],
    );
    expect(visitor.goOn).toHaveBeenCalledWith({
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
    expect(visitor.goOn).not.toHaveBeenCalled();
  });

  it("keeps an outdated choice as one that no longer answers", async () => {
    network.mockResolvedValue(answer({ ...elsewhere, stale: true }));
    await identify(site(), visitor, "token");
    expect(visitor.goOn).toHaveBeenCalledWith(expect.objectContaining({ material: "-" }));
  });

  it("begins anew with another id where somebody else was signed in before", async () => {
    network.mockResolvedValueOnce(answer(null, 409)).mockResolvedValueOnce(answer(null));
    await identify(site(), visitor, "token");
    expect(vi.mocked(visitor.goOn).mock.calls).toEqual([[null]]);
    expect(JSON.parse(String(network.mock.calls[1]?.[1]?.body)).visitor_id).toBe(OTHER);
  });

  it("leaves alone what was chosen while it asked", async () => {
    network.mockImplementation(async () => {
      stored = decision({ choices: { functional: true, analytics: false, advertising: true } });
      return answer({ ...elsewhere, decided_at: new Date(NOW + 1).toISOString() });
    });
    expect(await identify(site(), visitor, "token")).toBe(true);
    expect(visitor.goOn).not.toHaveBeenCalled();
  });

  it("says so when it was refused", async () => {
    network.mockResolvedValue(answer(null, 401));
    await expect(identify(site(), visitor, "token")).rejects.toThrow("status 401");
  });
});

const ALL = { functional: true, analytics: true, advertising: true };
const minute = (count: number) => NOW + count * 60_000;
const moment = (count: number) => new Date(minute(count)).toISOString();

/** Loads a page an hour after `NOW` with this stored; what is stored once it has heard this, if news. */
function joinedOn(config: Config, stored: Partial<Decision> | null, told: object): Decision | null {
  const { gpc } = config;
  const mine = stored && decision({ mode: config.mode, consentId: "con_1", ...stored });
  const now = minute(60);
  const page = begin(config, { stored: mine, gpc, now, newVisitorId: VISITOR });
  return joined(config, page, page.decision ?? mine, { state: null, ...told } as never);
}

/** What holds on the next page. */
const holding = (config: Config, stored: Decision | null) => {
  const {
    decision: held,
    choices,
    prompt,
  } = begin(config, {
    stored,
    gpc: config.gpc,
    now: minute(60),
    newVisitorId: VISITOR,
  });
  const { necessary: _, ...rest } = choices;
  return { choices: rest, isAnswered: held === stored && stored !== null, prompt };
};

describe("what the signal denied in a browser of the person", () => {
  const config = usSite();
  const signal = (at = 1) => ({
    denied: ["advertising", "gone"],
    decided_at: moment(at),
    consent_id: "con_s",
  });
  const without = { ...ALL, advertising: false };

  beforeEach(() => {
    vi.useFakeTimers({ now: minute(60) });
    return () => vi.useRealTimers();
  });

  it.each(["accept_all", "migrated", "dismissed", "api"] as const)(
    "is denied in what this one has stored (%s), which keeps its age and its id",
    (method) => {
      for (const at of [0, 2]) {
        const stored = { method, choices: ALL, decidedAt: minute(at) };
        const made = joinedOn(config, stored, { signal: signal() });
        expect(made).toEqual(
          decision({ mode: "opt_out", ...stored, consentId: "con_1", choices: without }),
        );
        expect(joinedOn(config, made, { signal: signal() })).toBeNull();
      }
    },
  );

  it("waits for the service to know of what was chosen here", () => {
    const stored = { choices: ALL, method: "custom", consentId: null } as const;
    expect(joinedOn(config, { ...stored, decidedAt: minute(0) }, { signal: signal() })).toBeNull();
    const dismissed = { ...stored, method: "dismissed", decidedAt: minute(0) } as const;
    expect(joinedOn(config, dismissed, { signal: signal() })?.choices).toEqual(without);
  });

  it("is denied where nobody has chosen, who is asked all the same", () => {
    const made = joinedOn(config, null, { signal: signal() });
    expect(holding(config, made)).toEqual({ choices: without, isAnswered: false, prompt: "ask" });
    expect(
      begin(config, { stored: made, gpc: false, now: minute(60), newVisitorId: "" }).reason,
    ).toBeNull();
    expect(joinedOn(config, made, { signal: signal() })).toBeNull();
    expect(joinedOn(site(), null, { signal: signal() })).toBeNull(); // nothing is on
  });

  it("is denied beside what an outdated choice of this browser refuses", () => {
    const stored = { material: "m6", choices: { ...ALL, analytics: false }, decidedAt: NOW };
    const made = joinedOn(config, stored, { signal: signal() });
    expect(holding(config, made)).toEqual({
      choices: { functional: true, analytics: false, advertising: false },
      isAnswered: false,
      prompt: "ask",
    });
    expect(joinedOn(config, made, { signal: signal() })).toBeNull();
  });

  it("is denied on top of what was chosen elsewhere, once for all", () => {
    for (const stale of [false, true]) {
      const choices = stale ? { analytics: false } : { ...ALL, analytics: false };
      const told = { ...elsewhere, mode: "opt_out", stale, choices };
      const answer = { state: told, signal: signal() };
      const made = joinedOn(config, null, answer);
      expect(holding(config, made).choices).toEqual({ ...without, analytics: false });
      expect(joinedOn(config, made, answer)).toBeNull();
    }
  });

  it("comes before what is chosen next, also where this clock is behind, and makes no grant live on", () => {
    const stored = { method: "accept_all", choices: ALL, decidedAt: NOW } as const;
    expect(joinedOn(config, stored, { signal: signal(61) })?.decidedAt).toBe(minute(61));
    const old = { ...stored, decidedAt: minute(61) - 2 * 86_400_000 };
    expect(joinedOn(config, old, { signal: signal(61) })?.decidedAt).toBe(old.decidedAt);
  });
});

describe("what was chosen on another device", () => {
  const config = usSite();
  const told = (more: object = {}) => ({ state: { ...elsewhere, mode: "opt_out", ...more } });
  const later = { choices: ALL, decidedAt: minute(1) };

  it("gives way to a later choice here, and to nothing else that was recorded later", () => {
    const unsent = { ...later, method: "accept_all", consentId: null } as const;
    expect(joinedOn(config, unsent, told())).toBeNull();
    // The service knows of this one: it was this browser's clock that was ahead.
    expect(joinedOn(config, { ...unsent, consentId: "con_1" }, told())).toMatchObject({
      choices: elsewhere.choices,
    });
    // Outdated by now, it waits all the same.
    const outdated = { ...unsent, material: "m6" };
    expect(joinedOn(config, outdated, told())?.decidedAt).toBe(later.decidedAt);
    for (const method of ["dismissed", "gpc", "migrated"] as const)
      expect(joinedOn(config, { ...later, method }, told())).toMatchObject({
        choices: elsewhere.choices,
        method: "api",
        decidedAt: NOW,
        consentId: "con_9",
      });
  });

  it("adds its refusals to a notice that was closed here, once it is outdated", () => {
    const stored = { ...later, method: "dismissed" } as const;
    const outdated = told({ stale: true, choices: { analytics: false } });
    const made = joinedOn(config, stored, outdated);
    const choices = { ...ALL, analytics: false };
    expect(holding(config, made)).toEqual({ choices, isAnswered: true, prompt: null });
    expect(joinedOn(config, made, outdated)).toBeNull();
    const unsent = { ...later, method: "accept_all", consentId: null } as const;
    expect(joinedOn(config, unsent, outdated)).toBeNull();
  });

  it("leaves what the signal made here, where it has run out and nobody is to be asked", () => {
    const stored = { method: "gpc", gpc: true, choices: { ...ALL, advertising: false } } as const;
    const california = usSite({ gpc: true, reask_after_days: 366 });
    const choices = { analytics: false };
    const old = told({ choices, decided_at: new Date(NOW - 181 * 86_400_000).toISOString() });
    const made = joinedOn(california, stored, old);
    expect(made).toMatchObject({ method: "gpc", choices: { ...stored.choices, ...choices } });
    expect(holding(california, made).isAnswered).toBe(true); // else each page makes a record
  });

  it("is heard where it denies what this browser's own newest choice left be", () => {
    const stored = {
      method: "custom",
      choices: { functional: false },
      decidedAt: minute(7),
    } as const;
    const joint = told({ consent_id: "con_1", choices: { functional: false, analytics: false } });
    const made = joinedOn(config, stored, joint);
    expect(made).toMatchObject({ choices: { functional: false, analytics: false } });
  });

  it("answers once it is no longer outdated: the notice may have gone back", () => {
    const choices = { functional: false, analytics: false, advertising: false };
    const made = joinedOn(config, null, told({ stale: true, choices }));
    expect(holding(config, made)).toMatchObject({ choices, isAnswered: false });
    expect(holding(config, joinedOn(config, made, told({ choices })))).toMatchObject({
      choices,
      isAnswered: true,
    });
  });

  describe("where this browser sends the signal", () => {
    const signalling = usSite({ gpc: true });

    it.each(["gpc", "custom", "reject_all"] as const)(
      "grants nothing against it after %s, and makes no record",
      (method) => {
        const stored = {
          method,
          gpc: true,
          choices: { ...ALL, advertising: false },
          decidedAt: NOW - 1,
        };
        const made = joinedOn(signalling, stored, told({ choices: ALL }));
        expect(holding(signalling, made)).toEqual({
          choices: { ...ALL, advertising: false },
          isAnswered: true,
          prompt: null,
        });
      },
    );

    it("leaves what was granted against it in this browser", () => {
      const stored = { method: "accept_all", gpc: true, choices: ALL, decidedAt: NOW - 1 } as const;
      const made = joinedOn(signalling, stored, told({ choices: { ...ALL, analytics: false } }));
      expect(holding(signalling, made)).toMatchObject({
        choices: { ...ALL, analytics: false },
        isAnswered: true,
      });
    });
  });
});

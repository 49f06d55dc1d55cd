import { describe, expect, it } from "vitest";
import type { Method, Purpose } from "../src/config";
import { all, answers, begin, type Choices, honoursGpc, reduce, type State } from "../src/state";
import { decision, NOW, site, usSite, VISITOR } from "./fixtures";

const DAY = 86_400_000;
const NOBODY = { stored: null, gpc: false, now: NOW, newVisitorId: VISITOR };

describe("a page where nobody has answered", () => {
  it("grants only what is required under opt-in, whatever the defaults say", () => {
    const config = { ...usSite(), mode: "opt_in" as const };
    expect(begin(config, NOBODY)).toMatchObject({
      choices: { necessary: true, functional: false, analytics: false, advertising: false },
      prompt: "ask",
      decision: null,
    });
  });

  it("grants the defaults under opt-out", () => {
    expect(begin(usSite({ shown: false }), NOBODY)).toMatchObject({
      choices: { necessary: true, functional: true, analytics: true, advertising: true },
      prompt: null,
    });
  });

  it("keeps an outdated refusal but no outdated grant", () => {
    const stored = decision({
      material: "m6",
      choices: { functional: true, analytics: true, advertising: false },
    });
    expect(begin(usSite(), { ...NOBODY, stored })).toMatchObject({
      choices: { functional: true, analytics: true, advertising: false },
      prompt: "ask",
      visitorId: VISITOR,
    });
    expect(begin(site(), { ...NOBODY, stored }).choices).toMatchObject({ analytics: false });
  });
});

describe("Global Privacy Control", () => {
  it("denies advertising under opt-out and says so", () => {
    const state = begin(usSite(), { ...NOBODY, gpc: true });
    expect(state.decision).toMatchObject({
      method: "gpc",
      choices: { functional: true, analytics: true, advertising: false },
    });
    expect(state.prompt).toBe("gpc");
  });

  it("denies exactly what the site says it denies, whatever a purpose is called", () => {
    const config = usSite();
    const purposes = config.purposes.map((each) => ({
      ...each,
      denied_by_gpc: each.id === "analytics",
    }));
    const state = begin({ ...config, purposes }, { ...NOBODY, gpc: true });
    expect(state.choices).toMatchObject({ functional: true, analytics: false, advertising: true });
  });

  it("is recorded also where the service has left the denied purposes off already", () => {
    const config = usSite({ shown: false });
    const purposes = config.purposes.map((each) => ({ ...each, default: !each.denied_by_gpc }));
    const state = begin({ ...config, purposes }, { ...NOBODY, gpc: true });
    expect(state.decision).toMatchObject({
      method: "gpc",
      choices: { functional: true, analytics: true, advertising: false },
    });
    expect(state.prompt).toBe("gpc");
  });

  it("changes nothing where the law does not honour it", () => {
    const config = usSite({ honours_gpc: false });
    const state = begin(config, { ...NOBODY, gpc: true });
    expect(state).toMatchObject({ decision: null, prompt: "ask", choices: { advertising: true } });
    expect(honoursGpc(config, state)).toBeNull();
  });

  it("asks nothing where nothing is sold, and claims nothing", () => {
    const config = usSite();
    const purposes = config.purposes.map((each) => ({ ...each, denied_by_gpc: false }));
    const state = begin({ ...config, purposes }, { ...NOBODY, gpc: true });
    expect(state).toMatchObject({ decision: null, prompt: null, choices: { advertising: true } });
    expect(honoursGpc({ ...config, purposes }, state)).toBeNull();
  });

  it.each([
    ["api", false],
    ["migrated", false],
    ["custom", true],
    ["accept_all", true],
  ] as const)("meets a grant made by %s: does the grant stand? %s", (method, stands) => {
    const config = usSite();
    const changes = { advertising: true };
    const honoured = begin(config, { ...NOBODY, gpc: true });
    const state = reduce(config, honoured, { type: "decide", changes, method, at: NOW });
    expect(state.choices.advertising).toBe(stands);

    const stored = decision({ mode: "opt_out", method, gpc: true, choices: all(config, true) });
    const later = begin(config, { ...NOBODY, gpc: true, stored });
    expect(later.choices).toMatchObject({ analytics: true, advertising: stands });
    expect(later.decision === stored).toBe(stands);
    expect(later.prompt).toBe(stands ? null : "gpc");
  });

  it("comes after a choice made without it, and counts (11 CCR 7025)", () => {
    const stored = decision({ mode: "opt_out", method: "accept_all", choices: all(site(), true) });
    const state = begin(usSite(), { ...NOBODY, gpc: true, stored });
    expect(state.choices).toMatchObject({ analytics: true, advertising: false });
    expect(state.decision).toMatchObject({ method: "gpc", gpc: true });
    expect(state.prompt).toBe("gpc");
  });

  it("is not outweighed by a choice that does not name what it denies", () => {
    const config = usSite();
    const open = { ...begin(config, NOBODY), gpc: true };
    const changes = { analytics: true };
    const state = reduce(config, open, { type: "decide", changes, method: "custom", at: NOW });
    expect(state.choices).toMatchObject({ analytics: true, advertising: false });
    expect(honoursGpc(config, state)).toBe(true);
  });

  it("yields to an explicit choice made later", () => {
    const config = usSite();
    const honoured = begin(config, { ...NOBODY, gpc: true });
    const changes = { advertising: true };
    const state = reduce(config, honoured, { type: "decide", changes, method: "custom", at: NOW });
    expect(begin(config, { ...NOBODY, gpc: true, stored: state.decision })).toMatchObject({
      choices: { advertising: true },
      prompt: null,
    });
  });

  it("still asks under opt-in, with advertising off", () => {
    const state = begin(site(), { ...NOBODY, gpc: true });
    expect(state).toMatchObject({ prompt: "ask", decision: null, choices: { advertising: false } });
  });
});

describe("a stored decision", () => {
  it.each([
    ["answers", {}, {}, true],
    ["is for a notice with other words", { notice: "6" }, {}, true],
    ["was about something else", { material: "m6" }, {}, false],
    ["is of before materials were kept", { material: "" }, {}, true],
    ["is so, and for another notice", { material: "", notice: "6" }, {}, false],
    ["has expired", { decidedAt: NOW - 180 * DAY }, {}, false],
    ["lies in the future", { decidedAt: NOW + 2 * DAY }, {}, false],
    ["was silence under opt-out", { mode: "opt_out" as const }, {}, false],
    [
      "refused all under opt-out",
      { mode: "opt_out" as const, choices: all(site(), false) },
      {},
      true,
    ],
    ["has a numeric notice version", { material: "" }, { notice_version: 7 }, true],
    ["was silence where people are only told", { mode: "notice" as const }, {}, false],
  ])("%s", (_, stored, config, expected) => {
    expect(answers(site(config), decision(stored), NOW)).toBe(expected);
  });

  it.each([
    [
      "what the service says is new",
      { material: "m6", notice: "6" },
      { "6": ["analytics"] },
      ["analytics"],
    ],
    ["that the words are new", { material: "m6", notice: "6" }, { "6": [] }, []],
    [
      "what it never named",
      { material: "m6", notice: "5", choices: { analytics: true } },
      { "6": [] },
      ["The functional", "The advertising"],
    ],
  ])("of before a change says %s", (_, stored, news, names) => {
    const state = begin(site({ news }), { ...NOBODY, stored: decision(stored) });
    expect(state).toMatchObject({ prompt: "ask", reason: { kind: "changed", names } });
  });

  it("says when it was made once it has run out", () => {
    const stored = decision({ decidedAt: NOW - 180 * DAY });
    const state = begin(site(), { ...NOBODY, stored });
    expect(state.reason).toEqual({ kind: "expired", decidedAt: stored.decidedAt });
    expect(begin(site(), NOBODY).reason).toBeNull();
  });

  it("is none where the signal alone has spoken, here or elsewhere", () => {
    for (const material of ["-", "m6"]) {
      const stored = decision({ method: "gpc", material, notice: "6", decidedAt: NOW - 400 * DAY });
      expect(begin(site(), { ...NOBODY, stored })).toMatchObject({ prompt: "ask", reason: null });
    }
  });

  it("is no answer where the law asks first and it leaves purposes be", () => {
    const stored = decision({ choices: { analytics: true } });
    expect(begin(site(), { ...NOBODY, stored })).toMatchObject({
      prompt: "ask",
      choices: { necessary: true, functional: false, analytics: false, advertising: false },
    });
  });
});

describe("a refusal where the law has nobody asked again so soon", () => {
  const config = usSite({ reask_after_days: 366 });
  const refused = (changes = {}) => decision({ mode: "opt_out", ...changes });

  it.each([
    ["what is asked has changed", { material: "m6", notice: "6" }],
    ["its term has ended", { decidedAt: NOW - 181 * DAY }],
    ["it is a day short of being as old as that", { decidedAt: NOW - 365 * DAY }],
    ["the signal made it", { method: "gpc" as const, decidedAt: NOW - 181 * DAY }],
  ])("is not asked about though %s", (_, stored) => {
    expect(begin(config, { ...NOBODY, stored: refused(stored) })).toMatchObject({
      prompt: null,
      decision: null,
      choices: { necessary: true, functional: true, analytics: true, advertising: false },
    });
  });

  it.each([
    ["is as old as that", { decidedAt: NOW - 366 * DAY }],
    ["lies in the future", { decidedAt: NOW + 2 * DAY }],
    ["denied nothing", { choices: all(site(), true), decidedAt: NOW - 181 * DAY }],
  ])("is asked about once it %s", (_, stored) => {
    expect(begin(config, { ...NOBODY, stored: refused(stored) }).prompt).toBe("ask");
  });

  it("is asked about under another law, and by nobody's leave before a choice", () => {
    const stored = refused({ decidedAt: NOW - 181 * DAY });
    expect(begin(usSite(), { ...NOBODY, stored }).prompt).toBe("ask");
    expect(begin(config, NOBODY).prompt).toBe("ask");
  });

  it("leaves a new purpose as it is by default, and the signal its say", () => {
    const { advertising } = refused().choices;
    const stored = refused({ material: "m6", notice: "6", choices: { advertising } });
    expect(begin(config, { ...NOBODY, stored }).choices).toMatchObject({ analytics: true });
    const purposes = config.purposes.map((each) => ({ ...each, denied_by_gpc: true }));
    expect(begin({ ...config, purposes }, { ...NOBODY, stored, gpc: true })).toMatchObject({
      prompt: "gpc",
      decision: { method: "gpc" },
      choices: { functional: false, analytics: false, advertising: false },
    });
  });
});

describe("a purpose that came after an opt-out", () => {
  const purposes = usSite().purposes.map((each) => ({
    ...each,
    denied_by_gpc: ["partners", "advertising"].includes(each.id),
  }));
  const late = { ...purposes[2], id: "partners", denied_by_gpc: true, default: true };
  const later = { material: "m9", notice_version: "9" };
  const config = usSite({ purposes: [...purposes, late as Purpose], ...later });
  const answered = (choices: Choices, method: Method = "custom") => ({
    ...NOBODY,
    stored: decision({ mode: "opt_out", method, choices }),
  });

  it.each([
    ["what is sold was refused", { advertising: false }, false],
    ["and the rest was not", { functional: true, advertising: false }, false],
    ["nothing sold was refused", { functional: false }, true],
    ["one that is sold was allowed", { advertising: true, functional: false }, true],
    ["what was refused is gone, and may have been sold", { tracking: false }, false],
    ["what was allowed is gone", { statistics: true, advertising: false }, false],
    ["only what is required now was refused", { necessary: false }, true],
  ])("%s", (_, choices, expected) => {
    for (const asked of [config, { ...config, material: "m7" }]) {
      expect(begin(asked, answered(choices)).choices.partners).toBe(expected);
      expect(begin({ ...asked, mode: "opt_in" }, answered(choices)).choices.partners).toBe(false);
    }
  });

  it("is none where the notice had it: who limits one purpose has not chosen the others", () => {
    const stored = decision({ mode: "opt_out", method: "custom", choices: { advertising: false } });
    const same = { ...config, notice_version: stored.notice, material: stored.material };
    expect(begin(same, { ...NOBODY, stored }).choices.partners).toBe(true);
  });

  it("is named by the next choice", () => {
    const before = begin({ ...config, material: "m7" }, answered({ advertising: false }));
    const action = { type: "decide", method: "custom", at: NOW } as const;
    const next = reduce(config, before, { ...action, changes: { functional: false } });
    expect(next.decision?.choices).toEqual({
      functional: false,
      advertising: false,
      partners: false,
    });
  });
});

describe("deciding", () => {
  it("takes over no grant from what nobody chose, and asks about what was left be", () => {
    for (const method of ["gpc", "dismissed", "migrated"] as const) {
      const stored = decision({ method, mode: "opt_out", choices: all(usSite(), true) });
      const state = begin(usSite(), { ...NOBODY, stored });
      const action = { type: "decide", method: "custom", at: NOW } as const;
      const next = reduce(usSite(), state, { ...action, changes: { functional: false } });
      expect(next.decision?.choices).toEqual({ functional: false });
      const same = reduce(usSite(), state, { ...action, changes: {} });
      expect([same.decision, same.prompt]).toEqual([state.decision, null]);
    }
    const partial = decision({ mode: "opt_out", choices: { functional: false } });
    expect(answers(usSite(), partial, NOW)).toBe(true);
    expect(answers(site(), partial, NOW)).toBe(false);
  });

  it("leaves be what runs unasked, says again what was said, and denies what is denied", () => {
    const decide = (state: State, changes: Choices, method: Method = "custom") =>
      reduce(usSite(), state, { type: "decide", changes, method, at: NOW });
    const open = begin(usSite(), NOBODY);
    const first = decide(open, { functional: false });
    expect(first.decision?.choices).toEqual({ functional: false });
    expect(first.choices).toMatchObject({ functional: false, analytics: true, advertising: true });
    const second = decide(first, { analytics: true });
    expect(second.decision?.choices).toEqual({ functional: false, analytics: true });
    const all = { functional: true, analytics: true, advertising: true };
    const accepted = decide(open, all, "accept_all");
    expect(decide(accepted, { analytics: false }).decision?.choices).toEqual({
      ...all,
      analytics: false,
    });
  });

  it.each([
    ["accept_all", true],
    ["reject_all", false],
    ["withdrawal", false],
  ] as const)(
    "answers all alike by %s, whatever held before: the service refuses else",
    (method, answer) => {
      for (const config of [site(), usSite()]) {
        for (const before of [true, false]) {
          const stored = decision({
            mode: config.mode,
            method: "custom",
            choices: all(config, before),
          });
          for (const gpc of [true, false]) {
            const state = begin(config, { ...NOBODY, gpc, stored });
            const changes = all(config, answer);
            const { decision: made } = reduce(config, state, {
              type: "decide",
              changes,
              method,
              at: NOW,
            });
            expect(made?.choices).toEqual(changes);
          }
        }
      }
    },
  );

  const config = site();
  const fresh = begin(config, NOBODY);
  const decide = (state: State, changes: Record<string, boolean>, at = NOW): State =>
    reduce(config, state, { type: "decide", changes, method: "custom", at });

  it.each(["accept_all", "custom", "reject_all", "withdrawal", "api"] as const)(
    "says again under opt-out what was chosen before (%s)",
    (method) => {
      const stored = decision({ mode: "opt_out", method });
      const before = begin(usSite(), { ...NOBODY, stored });
      const action = { type: "decide", method: "custom", at: NOW } as const;
      const after = reduce(usSite(), before, { ...action, changes: { functional: false } });
      expect(Object.keys(after.decision?.choices ?? {})).toEqual(Object.keys(stored.choices));
    },
  );

  it("names every purpose that is not required and no other", () => {
    const state = decide(fresh, { analytics: true, necessary: false, invented: true });
    expect(state.decision?.choices).toEqual({
      functional: false,
      analytics: true,
      advertising: false,
    });
    expect(state.choices.necessary).toBe(true);
    expect(state.prompt).toBeNull();
  });

  it("takes only true for a grant", () => {
    const changes = { analytics: "yes" as unknown as boolean };
    expect(decide(fresh, changes).choices.analytics).toBe(false);
  });

  it("keeps what a change does not name", () => {
    const state = decide(decide(fresh, { analytics: true }), { functional: true });
    expect(state.decision?.choices).toMatchObject({ analytics: true, functional: true });
  });

  it("is later than the decision before it, even within a millisecond", () => {
    const second = decide(decide(fresh, {}), {});
    expect(second.decision?.decidedAt).toBe(NOW + 1);
  });

  it("survives purposes named like members of Object", () => {
    const names = ["__proto__", "constructor", "toString"];
    const hostile = site({
      purposes: names.map((id) => ({
        id,
        name: id,
        description: "",
        required: false,
        default: false,
        denied_by_gpc: false,
      })),
    });
    const none = begin(hostile, NOBODY);
    expect(Object.values(none.choices)).toEqual([false, false, false]);
    const state = reduce(hostile, none, {
      type: "decide",
      changes: all(hostile, true),
      method: "accept_all",
      at: NOW,
    });
    expect(Object.entries(state.choices)).toEqual(names.map((id) => [id, true]));
    expect(Object.getPrototypeOf(state.choices)).toBe(Object.prototype);
  });

  it("takes the service's answer only for the decision it belongs to", () => {
    const state = decide(fresh, {});
    const answer = { type: "recorded", consentId: "con_9", decidedAt: NOW } as const;
    expect(reduce(config, state, answer).decision?.consentId).toBe("con_9");
    expect(reduce(config, decide(state, {}), answer).decision?.consentId).toBeNull();
  });
});

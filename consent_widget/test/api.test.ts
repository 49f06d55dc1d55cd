import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { bodyOf, createOutbox, judge, uuid } from "../src/api";
import { decision, NOW, site, VISITOR } from "./fixtures";

const QUEUE = "qt_shop_q";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const body = (at = NOW) => bodyOf(site(), decision({ decidedAt: at }), false);
const created = () => new Response(JSON.stringify({ consent_id: "con_2" }), { status: 201 });
const status = (code: number, headers = {}) => new Response("", { status: code, headers });

let network: ReturnType<typeof vi.fn<typeof fetch>>;
const sent = (call: number) => JSON.parse(String(network.mock.calls[call]?.[1]?.body));
const settle = () => vi.advanceTimersByTimeAsync(250);

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(1);
  localStorage.clear();
  network = vi.fn<typeof fetch>();
  vi.stubGlobal("fetch", network);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the body", () => {
  it("has exactly the promised members", () => {
    expect(body()).toEqual({
      event_id: expect.stringMatching(UUID),
      site_key: "shop",
      visitor_id: VISITOR,
      notice_version: "7",
      choices: { functional: true, analytics: true, advertising: false },
      method: "custom",
      language: "en",
      region: "DE",
      gpc: false,
      decided_at: "2026-11-23T12:00:00.000Z",
      page: "https://shop.example/cart",
    });
  });

  it("leaves out a region nobody knows", () => {
    expect(bodyOf(site({ region: null }), decision(), true)).not.toHaveProperty("region");
  });
});

it("makes version 4 ids, each its own", () => {
  const ids = Array.from({ length: 1000 }, uuid);
  for (const id of ids) expect(id).toMatch(UUID);
  expect(new Set(ids).size).toBe(1000);
  for (const digit of "0123456789abcdef") expect(ids.some((id) => id[0] === digit)).toBe(true);
});

it.each([
  [201, null, "done"],
  [200, null, "done"],
  [409, null, "drop"],
  [422, null, "drop"],
  [403, null, 300_000],
  [404, null, 300_000],
  [408, "7", 300_000],
  [429, "7", 7000],
  [503, "999999", 0],
  [503, "99999", 300_000],
  [500, "soon", 0],
])("status %s with Retry-After %s means %s", (code, retryAfter, verdict) => {
  expect(judge(code, retryAfter)).toBe(verdict);
});

describe("the outbox", () => {
  it("posts without credentials, outlives the page, and reports the record", async () => {
    network.mockResolvedValue(created());
    const recorded = vi.fn();
    createOutbox(site(), recorded).send(body());
    await settle();
    expect(network).toHaveBeenCalledExactlyOnceWith(
      "https://privacy.example/v1/consent",
      expect.objectContaining({ method: "POST", credentials: "omit", keepalive: true }),
    );
    expect(recorded).toHaveBeenCalledWith({ consentId: "con_2", decidedAt: NOW });
    expect(localStorage.getItem(QUEUE)).toBeNull();
  });

  it("lets what the choice has opened go first, with the body safe", async () => {
    network.mockResolvedValue(created());
    createOutbox(site(), vi.fn()).send(body());
    await vi.advanceTimersByTimeAsync(249);
    expect(network).not.toHaveBeenCalled();
    expect(localStorage.getItem(QUEUE)).toContain("event_id");
    await vi.advanceTimersByTimeAsync(1);
    expect(network).toHaveBeenCalledOnce();
  });

  it("sends the same event again after a failure", async () => {
    network.mockRejectedValueOnce(new TypeError("offline")).mockResolvedValueOnce(status(500));
    network.mockResolvedValueOnce(created());
    createOutbox(site(), vi.fn()).send(body());
    await settle();
    expect(localStorage.getItem(QUEUE)).toContain("event_id");
    await vi.advanceTimersByTimeAsync(2000);
    await vi.advanceTimersByTimeAsync(4000);
    expect(network).toHaveBeenCalledTimes(3);
    expect(sent(2)).toEqual(sent(0));
    expect(localStorage.getItem(QUEUE)).toBeNull();
  });

  it("sends in a later page what an earlier one could not", async () => {
    network.mockRejectedValueOnce(new TypeError("offline"));
    createOutbox(site(), vi.fn()).send(body());
    await settle();
    network.mockResolvedValue(created());
    const recorded = vi.fn();
    await createOutbox(site(), recorded).flush();
    expect(sent(1)).toEqual(sent(0));
    expect(recorded).toHaveBeenCalledOnce();
  });

  it("is done for all who wait for it only when all is sent", async () => {
    const answers: ((response: Response) => void)[] = [];
    network.mockImplementation(() => new Promise((resolve) => answers.push(resolve)));
    const outbox = createOutbox(site(), vi.fn());
    outbox.send(body());
    const done = vi.fn();
    void outbox.flush();
    void outbox.flush().then(done);
    await settle();
    expect(done).not.toHaveBeenCalled();
    answers[0]?.(created());
    await settle();
    expect(done).toHaveBeenCalledOnce();
    expect(network).toHaveBeenCalledOnce();
  });

  it("says once on the console that nothing is recorded, and what may be the reason", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    network.mockRejectedValue(new TypeError("Failed to fetch"));
    createOutbox(site(), vi.fn()).send(body());
    await vi.advanceTimersByTimeAsync(60_000);
    expect(network.mock.calls.length).toBeGreaterThan(2);
    expect(warn.mock.calls).toEqual([[expect.stringContaining("Is https://shop.example an")]]);
  });

  it("tries again when the browser is back online", async () => {
    network.mockRejectedValueOnce(new TypeError("offline")).mockResolvedValue(created());
    createOutbox(site(), vi.fn()).send(body());
    await settle();
    window.dispatchEvent(new Event("online"));
    await settle();
    expect(localStorage.getItem(QUEUE)).toBeNull();
  });

  it("waits as long as the service asks", async () => {
    network
      .mockResolvedValueOnce(status(429, { "Retry-After": "60" }))
      .mockResolvedValue(created());
    createOutbox(site(), vi.fn()).send(body());
    await settle();
    await vi.advanceTimersByTimeAsync(59_000);
    expect(network).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(1000);
    expect(network).toHaveBeenCalledTimes(2);
  });

  it("drops what the service refuses and goes on with the next", async () => {
    network.mockResolvedValueOnce(status(422)).mockResolvedValue(created());
    const outbox = createOutbox(site(), vi.fn());
    outbox.send(body());
    outbox.send(body(NOW + 1));
    await settle();
    expect(network).toHaveBeenCalledTimes(2);
    expect(sent(1).decided_at).toBe("2026-11-23T12:00:00.001Z");
    expect(localStorage.getItem(QUEUE)).toBeNull();
  });

  it("sends all that waits when the page goes, also beside one that is under way", async () => {
    for (const isUnderWay of [false, true]) {
      network.mockReset().mockReturnValue(new Promise(() => {}));
      localStorage.clear();
      const outbox = createOutbox(site(), vi.fn());
      for (let n = 0; n < 3; n++) outbox.send(body(NOW + n));
      if (isUnderWay) await settle();
      outbox.leave();
      const moments = [0, 1, 2].map((call) => Date.parse(sent(call).decided_at) - NOW);
      expect(moments).toEqual([0, 1, 2]);
      expect(network).toHaveBeenCalledTimes(3);
      expect(JSON.parse(localStorage.getItem(QUEUE) ?? "[]")).toHaveLength(3);
    }
  });

  it("asks a service in trouble just once when the page goes", async () => {
    network.mockResolvedValue(status(503));
    const outbox = createOutbox(site(), vi.fn());
    for (let n = 0; n < 3; n++) outbox.send(body(NOW + n));
    await settle();
    outbox.leave();
    expect(network).toHaveBeenCalledTimes(2);
  });

  it("takes a success without a record id for somebody else's page", async () => {
    network.mockResolvedValue(new Response("<html>", { status: 200 }));
    createOutbox(site(), vi.fn()).send(body());
    await settle();
    expect(localStorage.getItem(QUEUE)).toContain("event_id");
  });

  it("keeps the newest twenty", async () => {
    network.mockRejectedValue(new TypeError("offline"));
    const outbox = createOutbox(site(), vi.fn());
    for (let n = 0; n < 25; n++) outbox.send(body(NOW + n));
    const kept = JSON.parse(localStorage.getItem(QUEUE) ?? "[]");
    expect(kept).toHaveLength(20);
    expect(kept.at(-1).decided_at).toBe(new Date(NOW + 24).toISOString());
  });

  it("ignores a queue that is not one", async () => {
    for (const text of ["{", "5", '[null, 1, {"event_id": 3}]', '[{"event_id":"x"}]']) {
      localStorage.setItem(QUEUE, text);
      await createOutbox(site(), vi.fn()).flush();
    }
    expect(network).not.toHaveBeenCalled();
  });

  it("remembers within the page when storage is blocked", async () => {
    const blocked = () => {
      throw new DOMException("denied", "SecurityError");
    };
    vi.spyOn(Storage.prototype, "getItem").mockImplementation(blocked);
    vi.spyOn(Storage.prototype, "setItem").mockImplementation(blocked);
    network.mockRejectedValueOnce(new TypeError("offline")).mockResolvedValue(created());
    createOutbox(site(), vi.fn()).send(body());
    expect(network).toHaveBeenCalledOnce();
    await settle();
    await vi.advanceTimersByTimeAsync(2000);
    expect(network).toHaveBeenCalledTimes(2);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(network).toHaveBeenCalledTimes(2);
  });
});

describe("a site with a host of its own", () => {
  const shop = site({ first_party: "https://privacy.shop.example" });
  const answered = () =>
    new Response(JSON.stringify({ consent_id: "con_2", remember_token: "t" }), { status: 201 });
  const choose = () => {
    const outbox = createOutbox(shop, () => {});
    outbox.send(bodyOf(shop, decision({ decidedAt: Date.now() }), false));
  };

  it("is asked to set the cookie that lasts", async () => {
    network
      .mockResolvedValueOnce(answered())
      .mockResolvedValueOnce(new Response(null, { status: 204 }));
    choose();
    await settle();
    const [address, init] = network.mock.calls[1] ?? [];
    expect(address).toBe("https://privacy.shop.example/b/shop/remember");
    expect(init?.credentials).toBe("include");
    expect(sent(1)).toEqual({ consent_id: "con_2", token: "t" });
    expect(localStorage.getItem(QUEUE)).toBeNull();
  });

  it("keeps nobody waiting who waits for the record, though it never answers", async () => {
    network.mockResolvedValueOnce(answered()).mockImplementation(
      (_, init) =>
        new Promise((_, reject) => {
          init?.signal?.addEventListener("abort", () => reject(new DOMException("timeout")));
        }),
    );
    const outbox = createOutbox(shop, () => {});
    outbox.send(bodyOf(shop, decision({ decidedAt: Date.now() }), false));
    await settle();
    const done = vi.fn();
    void outbox.flush().then(done);
    await vi.advanceTimersByTimeAsync(16_000);
    expect(done).toHaveBeenCalledOnce();
  });

  it("is asked again with a fresh token while it is away, and not once it has refused", async () => {
    network
      .mockResolvedValueOnce(answered())
      .mockRejectedValueOnce(new TypeError("offline"))
      .mockResolvedValueOnce(answered())
      .mockResolvedValueOnce(status(409));
    choose();
    await settle();
    expect(JSON.parse(localStorage.getItem(QUEUE) ?? "[]")).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(network).toHaveBeenCalledTimes(4);
    expect(sent(2)).toEqual(sent(0));
    expect(localStorage.getItem(QUEUE)).toBeNull();
  });
});

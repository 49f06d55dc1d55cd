import { beforeEach, describe, expect, it, vi } from "vitest";
import { identify, type Visitor } from "../src/identify";
import { NOW, site, VISITOR } from "./fixtures";

const OTHER = "0b8e3c1e-8f0a-4c39-9d1e-0a4b5c6d7e8f";
let network: ReturnType<typeof vi.fn<typeof fetch>>;
let visitor: Visitor;

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
  visitor = {
    id: () => id,
    keep: vi.fn(),
    renew: vi.fn(() => {
      id = OTHER;
      return id;
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

import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Tracker } from "../src/config";
import { sweep } from "../src/sweep";

const cookie = (pattern: string, purpose = "analytics"): Tracker => ({
  kind: "cookie",
  pattern,
  purpose,
  http_only: false,
});
const denied = (id: string): boolean => id === "analytics";

beforeEach(() => {
  for (const pair of document.cookie.split("; ")) {
    for (const domain of ["", "; Domain=shop.example"])
      for (const path of ["/", "/cart"])
        document.cookie = `${pair.split("=")[0]}=; Max-Age=0; Path=${path}${domain}`;
  }
  localStorage.clear();
  sessionStorage.clear();
});

describe("sweeping", () => {
  it("removes cookies of denied purposes by whole name and by beginning, and no others", () => {
    for (const name of ["_ga", "_ga_7", "_gat", "ads", "basket"]) document.cookie = `${name}=1`;
    const rules = [cookie("_ga"), cookie("_ga_*"), cookie("ads", "advertising")];
    expect([...sweep(rules, denied).cleared].sort()).toEqual(["_ga", "_ga_7"]);
    expect(document.cookie.split("; ").sort()).toEqual(["_gat=1", "ads=1", "basket=1"]);
  });

  it("finds them on this path and on the root, with and without a domain", () => {
    document.cookie = "_ga=1; Path=/";
    document.cookie = "_ga=2; Path=/cart";
    document.cookie = "_ga=3; Path=/; Domain=shop.example";
    expect(sweep([cookie("_ga")], denied)).toEqual({ cleared: ["_ga"], left: [] });
    expect(document.cookie).toBe("");
  });

  it("says what it could not remove", () => {
    document.cookie = "_ga=1";
    vi.spyOn(Document.prototype, "cookie", "set").mockReturnValue();
    expect(sweep([cookie("_ga")], denied)).toEqual({ cleared: [], left: ["_ga"] });
  });

  it("clears both web storages, and gives up quietly where they are blocked", () => {
    const rule: Tracker = { ...cookie("uid*"), kind: "storage" };
    localStorage.setItem("uid_1", "x");
    sessionStorage.setItem("uid_2", "x");
    localStorage.setItem("cart", "x");
    expect(sweep([rule], denied).cleared).toEqual(["uid_1", "uid_2"]);
    expect(localStorage.length + sessionStorage.length).toBe(1);
    vi.spyOn(window, "localStorage", "get").mockImplementation(() => {
      throw new DOMException("denied", "SecurityError");
    });
    expect(() => sweep([rule], denied)).not.toThrow();
  });
});

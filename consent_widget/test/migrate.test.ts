import { beforeEach, describe, expect, it } from "vitest";
import { cookies } from "../src/dom";
import { earlier } from "../src/modules/migrate";
import { NOW, site } from "./fixtures";

const put = (name: string, value: string) => {
  document.cookie = `${name}=${encodeURIComponent(value)}; Path=/`;
};
const DATE = "2026-10-01T08:00:00.000Z";
const AT = Date.parse(DATE);

beforeEach(() => {
  for (const [name] of cookies()) document.cookie = `${name}=; Path=/; Max-Age=0`;
  localStorage.clear();
});

const CHOICES = { functional: false, analytics: true, advertising: false };
const oneTrust = "isGpcEnabled=0&groups=C0001:1,C0002:1,C0003:0,C0004:0&consentId=1";
const cookiebot = `{stamp:'x==',necessary:true,preferences:false,statistics:true,marketing:false,method:'explicit',ver:1,utc:${AT},region:'de'}`;

describe("another consent manager's choice", () => {
  it.each([
    ["OneTrust", { OptanonConsent: oneTrust, OptanonAlertBoxClosed: DATE }, AT],
    ["Cookiebot", { CookieConsent: cookiebot }, AT],
    ["Klaro", { klaro: '{"matomo":true,"video":false,"ads":false}' }, NOW],
    [
      "vanilla-cookieconsent",
      {
        cc_cookie: `{"categories":["necessary","analytics"],"revision":0,"lastConsentTimestamp":"${DATE}"}`,
      },
      AT,
    ],
    ["tarteaucitron", { tarteaucitron: "!matomo=true!video=false!ads=false" }, NOW],
    [
      "Segment",
      {
        "tracking-preferences":
          '{"version":1,"destinations":{"Google Analytics":true},"custom":{"marketingAndAnalytics":true,"functional":false,"advertising":false}}',
      },
      NOW,
    ],
  ])("of %s is read", (_, stored, at) => {
    for (const [name, value] of Object.entries(stored)) put(name, value);
    const mapping = { matomo: "analytics", video: "functional", ads: "advertising" };
    expect(earlier(site({ mapping }), NOW)).toEqual({ choices: CHOICES, at });
  });

  it.each([
    ["none is there", {}],
    ["the box was never closed", { OptanonConsent: oneTrust }],
    ["nobody was asked", { CookieConsent: cookiebot.replace("explicit", "implied") }],
    ["there is no answer", { CookieConsent: "-1" }],
    ["one still waits", { tarteaucitron: "!analytics=true!functional=wait!advertising=false" }],
    ["a purpose was never asked about", { klaro: '{"analytics":true,"functional":true}' }],
    ["it is not theirs", { klaro: "rubbish", cc_cookie: "7", tarteaucitron: "x" }],
    [
      "it has run out",
      { OptanonConsent: oneTrust, OptanonAlertBoxClosed: "2026-01-01T00:00:00.000Z" },
    ],
  ])("does not count when %s", (_, stored) => {
    for (const [name, value] of Object.entries(stored)) put(name, value);
    expect(earlier(site(), NOW)).toBeNull();
  });

  it("grants a purpose made of several of theirs only if all were granted", () => {
    const mapping = { video: "functional", maps: "functional", ads: "advertising" };
    localStorage.setItem(
      "klaro",
      '{"video":true,"maps":false,"ads":true,"analytics":true,"other":false}',
    );
    expect(earlier(site({ mapping }), NOW)?.choices).toEqual({
      functional: false,
      analytics: true,
      advertising: true,
    });
  });
});

import type { Config, Purpose } from "../src/config";
import type { Decision } from "../src/state";

export const NOW = Date.parse("2026-11-23T12:00:00Z");
export const VISITOR = "5f0c1d5e-8f0a-4c39-9d1e-0a4b5c6d7e8f";

const purpose = (id: string, more: Partial<Purpose> = {}): Purpose => ({
  id,
  name: `The ${id}`,
  description: `Why ${id}`,
  required: false,
  default: false,
  denied_by_gpc: false,
  ...more,
});

export function site(changes: Partial<Config> = {}): Config {
  return {
    site_key: "shop",
    notice_version: "7",
    material: "m7",
    dialog: "https://privacy.example/b/w/0/dialog.js",
    regime: "gdpr",
    mode: "opt_in",
    shown: true,
    honours_gpc: true,
    language: "en",
    direction: "ltr",
    expiry_days: 180,
    purposes: [
      purpose("necessary", { required: true, default: true }),
      purpose("functional"),
      purpose("analytics"),
      purpose("advertising", { denied_by_gpc: true }),
    ],
    texts: {
      title: "Your privacy",
      body: "We ask first.",
      accept: "Accept all",
      reject: "Reject all",
      manage: "Choose",
      save: "Save",
      close: "Close",
      dialog_title: "Preferences",
      dialog_body: "Purpose by purpose.",
      always_on: "Always on",
      gpc_notice: "Your opt-out signal is honoured.",
      policy_link: "Privacy policy",
      do_not_sell: "Do not sell or share",
      withdraw: "Withdraw",
      placeholder: "Held back.",
      placeholder_once: "Load once",
      placeholder_always: "Always load",
      record: "Record {id}, {date}",
      understood: "OK",
      limit_use: "Limit",
      gpc_overruled: "Your later choice counts.",
      changed: "New: {changes}.",
      changed_notice: "Our notice has changed.",
      expired: "Yours of {date} has run out.",
      unavailable: "Could not be loaded.",
    },
    theme: { position: "bottom", sheet: ":host{--theme-radius:8px}" },
    api: "https://privacy.example",
    gpc: false,
    privacy_url: "https://shop.example/privacy",
    region: "DE",
    ...changes,
  };
}

export function usSite(changes: Partial<Config> = {}): Config {
  const config = site({ regime: "ccpa", mode: "opt_out", region: "US-CA", ...changes });
  return { ...config, purposes: config.purposes.map((each) => ({ ...each, default: true })) };
}

export function decision(changes: Partial<Decision> = {}): Decision {
  return {
    mode: "opt_in",
    notice: "7",
    material: "m7",
    gpc: false,
    visitorId: VISITOR,
    decidedAt: NOW - 1000,
    method: "custom",
    choices: { functional: true, analytics: true, advertising: false },
    consentId: "con_1",
    ...changes,
  };
}

/**
 * Google Consent Mode v2: tells Google's tags what is granted, before any of them may run and at every
 * change. Source: developers.google.com/tag-platform/security/guides/consent, read 2026-11-23.
 *
 * Pages whose tags may start before the widget does carry the stub that the service writes for the
 * site (`app/sites/consent_mode.py`); without it the default is set here.
 */
import type { Config } from "../config";
import type { Quittance } from "../main";

type Status = "granted" | "denied";

/** Consent type -> purpose, unless the site's `mapping` names another one for the type. */
const PURPOSES: Readonly<Record<string, string>> = {
  ad_storage: "advertising",
  ad_user_data: "advertising",
  ad_personalization: "advertising",
  analytics_storage: "analytics",
  functionality_storage: "functional",
  personalization_storage: "functional",
};

interface Layer {
  dataLayer?: unknown[];
}

/** `gtag("consent", "default", {...})`. */
type Default = ArrayLike<unknown> & { 2?: Readonly<Record<string, unknown>> };

export function types(
  has: (purpose: string) => boolean,
  mapping: Config["mapping"] = {},
): Record<string, Status> {
  const found: Record<string, Status> = { security_storage: "granted" };
  for (const [type, purpose] of Object.entries(PURPOSES))
    found[type] = has(mapping[type] ?? purpose) ? "granted" : "denied";
  return found;
}

export function install(quittance: Quittance, { mapping }: Config): void {
  const page = window as Layer;
  page.dataLayer ??= [];
  const layer = page.dataLayer;
  // Google's tags tell a command from an event by its being an `arguments` object.
  function gtag(..._command: unknown[]): void {
    // biome-ignore lint/complexity/noArguments: see above
    layer.push(arguments);
  }
  const defaults = layer.filter(
    (entry): entry is Default =>
      (entry as ArrayLike<unknown>)?.[0] === "consent" &&
      (entry as ArrayLike<unknown>)[1] === "default",
  );
  const tell = (command: "default" | "update"): void =>
    gtag("consent", command, types(quittance.has, mapping));

  // The stub believes a stored choice, and whole regions, also where that is no answer any more.
  const said = types(quittance.has, mapping);
  const isLoose = defaults.some(({ 2: state }) =>
    Object.keys(said).some((type) => state?.[type] === "granted" && said[type] === "denied"),
  );
  // Without the stub nothing has been told yet, so what holds now is the best default there is.
  if (!defaults.length) tell("default");
  else if (quittance.decided || quittance.mode !== "opt_in" || isLoose) tell("update");
  quittance.on("change", ({ choices, method }) => {
    tell("update");
    layer.push({ event: "quittance_consent", quittance: { choices, method } });
  });
}

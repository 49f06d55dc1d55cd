/** The npm package: puts the site's script into the page, once, and hands over `window.quittance`. */
import type { load as Load, LoadOptions, Quittance } from "../types";

interface Policy {
  createScriptURL(url: string): string;
}

let coming: Promise<Quittance> | null = null;
let policy: Policy | null = null;

export const load: typeof Load = (options) => {
  coming ??= bring(options).catch((error: unknown) => {
    coming = null; // the next call tries again
    throw error;
  });
  return coming;
};

async function bring(options: LoadOptions): Promise<Quittance> {
  if (typeof document === "undefined")
    throw new Error("quittance: there is no page here; call load() in the browser");
  const src = addressOf(options);
  if (!running()) await insert(src, options);
  const quittance = running();
  if (!quittance) throw new Error(`quittance: ${src} has run, but is not the script of a banner`);
  return quittance;
}

function addressOf({ service, siteKey, language, region }: LoadOptions): string {
  if (!siteKey) throw new TypeError("quittance: siteKey is missing");
  if (!/^https?:\/\//i.test(service))
    throw new TypeError(`quittance: service is an http(s) address, not ${service}`);
  const url = new URL(`${service.replace(/\/+$/, "")}/b/${encodeURIComponent(siteKey)}.js`);
  if (language) url.searchParams.set("lang", language);
  if (region) url.searchParams.set("region", region);
  return url.href;
}

function running(): Quittance | undefined {
  const { quittance } = window;
  // An element with the id `quittance` is a name on the window too.
  return typeof quittance?.withdraw === "function" ? quittance : undefined;
}

/** Where a page demands trusted types, a string is no address; its policy may also forbid ours. */
function trusted(url: string): string {
  const types = (window as { trustedTypes?: { createPolicy(name: string, rules: Policy): Policy } })
    .trustedTypes;
  policy ??= types?.createPolicy("quittance-load", { createScriptURL: (each) => each }) ?? null;
  return policy ? policy.createScriptURL(url) : url;
}

function insert(src: string, { nonce, headless }: LoadOptions): Promise<void> {
  const script = document.createElement("script");
  script.src = trusted(src);
  if (nonce) script.nonce = nonce;
  if (headless) script.setAttribute("data-headless", "");
  return new Promise((resolve, reject) => {
    script.onload = () => resolve();
    script.onerror = () => {
      script.remove();
      const why = "Does the service answer, is the site published, and does the page's";
      reject(
        new Error(
          `quittance: ${src} could not be loaded. ${why} Content-Security-Policy allow it?`,
        ),
      );
    };
    document.head.append(script);
  });
}

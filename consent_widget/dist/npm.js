// src/npm.ts
var coming = null;
var policy = null;
var load = (options) => {
  coming ??= bring(options).catch((error) => {
    coming = null;
    throw error;
  });
  return coming;
};
async function bring(options) {
  if (typeof document === "undefined")
    throw new Error("quittance: there is no page here; call load() in the browser");
  const src = addressOf(options);
  if (!running()) await insert(src, options);
  const quittance = running();
  if (!quittance) throw new Error(`quittance: ${src} has run, but is not the script of a banner`);
  return quittance;
}
function addressOf({ service, siteKey, language, region }) {
  if (!siteKey) throw new TypeError("quittance: siteKey is missing");
  if (!/^https?:\/\//i.test(service))
    throw new TypeError(`quittance: service is an http(s) address, not ${service}`);
  const url = new URL(`${service.replace(/\/+$/, "")}/b/${encodeURIComponent(siteKey)}.js`);
  if (language) url.searchParams.set("lang", language);
  if (region) url.searchParams.set("region", region);
  return url.href;
}
function running() {
  const { quittance } = window;
  return typeof quittance?.withdraw === "function" ? quittance : void 0;
}
function trusted(url) {
  const types = window.trustedTypes;
  policy ??= types?.createPolicy("quittance-load", { createScriptURL: (each) => each }) ?? null;
  return policy ? policy.createScriptURL(url) : url;
}
function insert(src, { nonce, headless }) {
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
          `quittance: ${src} could not be loaded. ${why} Content-Security-Policy allow it?`
        )
      );
    };
    document.head.append(script);
  });
}
export {
  load
};

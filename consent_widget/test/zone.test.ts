import { expect, it, vi } from "vitest";
import type { Strict } from "../src/config";
import { underZone } from "../src/zone";
import { site, usSite } from "./fixtures";

const strict: Strict = {
  zones: [
    ["America/Sao_Paulo", "lgpd"],
    ["Europe/London", "uk_gdpr"],
    ["Europe/", "gdpr"],
  ],
  honours_gpc: ["uk_gdpr", "gdpr"],
  texts: { body: "We ask you first." },
};

it.each([
  ["Europe/Berlin", "gdpr", true],
  ["Europe/London", "uk_gdpr", true],
  ["America/Sao_Paulo", "lgpd", false],
])("asks a browser in %s under the %s", (zone, regime, honours_gpc) => {
  const served = usSite({ strict, shown: false, reask_after_days: 366 });
  const config = underZone(served, () => zone);
  expect(config).toMatchObject({ regime, mode: "opt_in", shown: true, honours_gpc });
  expect(config.texts).toMatchObject({ body: "We ask you first.", accept: "Accept all" });
  expect([config.region, config.tightened]).toEqual(["US-CA", true]);
  expect(config.reask_after_days, "another law's").toBe(0);
});

it.each(["America/Los_Angeles", "UTC", "", undefined])("changes nothing in %s", (zone) => {
  const config = usSite({ strict });
  expect(underZone(config, () => zone)).toBe(config);
});

it("changes nothing where the region's law asks first already", () => {
  const config = site({ region: "BR", regime: "lgpd" });
  const zone = vi.fn(() => "Europe/Berlin");
  expect(underZone(config, zone)).toBe(config);
  expect(zone, "asking takes long").not.toHaveBeenCalled();
});

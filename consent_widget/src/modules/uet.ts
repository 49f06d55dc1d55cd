/** Microsoft's UET consent mode (help.ads.microsoft.com, "UET consent mode"): `ad_storage` alone. */
import type { Config } from "../config";
import type { Quittance } from "../main";

export function install(quittance: Quittance, { mapping }: Config): void {
  const page = window as { uetq?: unknown[] };
  const purpose = mapping?.uet ?? "advertising";
  const tell = (command: "default" | "update"): void => {
    page.uetq ??= []; // UET replaces its queue when it loads, so it is looked up each time
    page.uetq.push("consent", command, {
      ad_storage: quittance.has(purpose) ? "granted" : "denied",
    });
  };
  tell("default");
  if (quittance.decided) tell("update");
  quittance.on("change", () => tell("update"));
}

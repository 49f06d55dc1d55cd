/** Tells the service something in passing: once, and whether it arrives or not. */
import { POST } from "./api";
import type { Config } from "./config";

export const tell = ({ api, site_key }: Config, what: string, body: object): void =>
  void fetch(`${api}/b/${site_key}/${what}`, {
    ...POST,
    credentials: "omit",
    body: JSON.stringify(body),
  }).catch(() => {});

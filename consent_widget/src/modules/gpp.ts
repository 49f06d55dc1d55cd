/**
 * IAB Global Privacy Platform for the United States: `window.__gpp` with the sections `usnat` and
 * `usca`. Sources: IAB Tech Lab, Global-Privacy-Platform, CMP API Specification 1.1, Consent String
 * Specification and the two sections, as of 2025-12-17.
 *
 * Vendors may call before the widget has come: a stub that queues (IAB's own, or none if the widget's
 * tag stands first and is not `async`) is taken over here.
 */
import type { Config } from "../config";
import type { Gate } from "../gate";
import type { Quittance } from "../main";
import { hasGpc } from "../signals";
import { granted } from "../state";

type Section = Readonly<Record<string, number | readonly number[] | boolean>>;
type Callback = (data: unknown, success: boolean) => void;
type Call = readonly [command: string, callback?: Callback, parameter?: unknown, version?: string];

/** Name -> section id. */
const SECTIONS = { usnat: 7, usca: 8 } as const;
type Name = keyof typeof SECTIONS;

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const int = (value: number, width: number): string => value.toString(2).padStart(width, "0");

/** Six bits a letter, the last one filled up with zeros. */
const packed = (bits: string): string =>
  (bits.match(/.{1,6}/g) ?? [])
    .map((six) => ALPHABET[Number.parseInt(six.padEnd(6, "0"), 2)])
    .join("");

/** Zeckendorf's sum, smallest number first, closed by a second 1. */
export function fibonacci(value: number): string {
  const numbers = [1, 2];
  while ((numbers.at(-1) as number) <= value)
    numbers.push((numbers.at(-1) as number) + (numbers.at(-2) as number));
  let rest = value;
  let bits = "";
  for (const number of numbers.slice(0, -1).reverse()) {
    bits = (number <= rest ? "1" : "0") + bits;
    if (number <= rest) rest -= number;
  }
  return `${bits}1`;
}

/** Which sections follow: type 3, version 1, and the ids as single-element ranges. */
function header(ids: readonly number[]): string {
  const items = ids.map((id, index) => `0${fibonacci(id - (ids[index - 1] ?? 0))}`);
  return packed(int(3, 6) + int(1, 6) + int(ids.length, 12) + items.join(""));
}

/** The members of a section are the fields of its core segment, in order; those of GPC follow. */
function encoded({ GpcSegmentType, Gpc, ...core }: Section): string {
  const bits = Object.entries(core).flatMap(([field, value]) =>
    [value].flat().map((each) => int(Number(each), field === "Version" ? 6 : 2)),
  );
  return `${packed(bits.join(""))}.${packed(int(Number(GpcSegmentType), 2) + Number(Gpc))}`;
}

export const gppString = (sections: Readonly<Partial<Record<Name, Section>>>): string => {
  const names = Object.keys(sections) as Name[];
  const parts = names.map((name) => encoded(sections[name] as Section));
  return [header(names.map((name) => SECTIONS[name])), ...parts].join("~");
};

const OPTED_OUT = 1;
const NOT_OPTED_OUT = 2;
const NOTICE_GIVEN = 1;
const NO_CONSENT = 1;
const CONSENT = 2;

/** What the choices mean in the words of a section; what the site cannot know is 0, not applicable. */
export function sectionOf(
  name: Name,
  { purposes }: Config,
  choices: Readonly<Record<string, boolean>>,
  gpc: boolean,
): Section {
  const isOut = purposes.some(({ id, denied_by_gpc }) => denied_by_gpc && !granted(choices, id));
  const optOut = isOut ? OPTED_OUT : NOT_OPTED_OUT;
  const sensitive = purposes.filter((each) => each.sensitive);
  const limit = sensitive.length > 0 ? NOTICE_GIVEN : 0;
  // A purpose does not say of which kind its data are: what is denied is denied for every kind.
  const isAllowed = sensitive.every(({ id }) => granted(choices, id));
  const use = limit && (isAllowed ? CONSENT : NO_CONSENT);
  const isNational = name === "usnat";
  const each = (count: number, value: number): number[] => Array<number>(count).fill(value);
  return {
    Version: isNational ? 2 : 1,
    ...(isNational && { SharingNotice: NOTICE_GIVEN }),
    SaleOptOutNotice: NOTICE_GIVEN,
    SharingOptOutNotice: NOTICE_GIVEN,
    ...(isNational && {
      TargetedAdvertisingOptOutNotice: NOTICE_GIVEN,
      SensitiveDataProcessingOptOutNotice: limit,
    }),
    SensitiveDataLimitUseNotice: limit,
    SaleOptOut: optOut,
    SharingOptOut: optOut,
    ...(isNational && { TargetedAdvertisingOptOut: optOut }),
    SensitiveDataProcessing: each(isNational ? 16 : 9, use),
    KnownChildSensitiveDataConsents: each(isNational ? 3 : 2, 0),
    PersonalDataConsents: 0,
    MspaCoveredTransaction: 2, // 1 is for signatories of the IAB's agreement
    MspaOptOutOptionMode: 0,
    MspaServiceProviderMode: 0,
    GpcSegmentType: 1,
    Gpc: gpc,
  };
}

/**
 * The section of the visitor's region: California has its own. None where no law lets people opt out:
 * whoever is asked first was shown none of the notices that a section speaks of.
 */
function applicable({ mode, region }: Config): Name | null {
  if (mode !== "opt_out") return null;
  if (region === "US-CA") return "usca";
  return region?.startsWith("US") ? "usnat" : null;
}

interface Api {
  (...call: Call): unknown;
  queue?: Call[];
  events?: { id: number; callback: Callback; parameter?: unknown }[];
  lastId?: number;
}

export function install(
  quittance: Quittance,
  config: Config,
  _gate: Gate,
  isAsking: () => boolean,
): void {
  const page = window as { __gpp?: Api };
  const stub = page.__gpp;
  const name = applicable(config);
  const listeners = new Map<number, Callback>();
  let lastId = stub?.lastId ?? 0;
  let display = "hidden";
  let isReady = !isAsking();

  const signal = hasGpc(config, navigator);
  const parsed = (): Partial<Record<Name, Section>> =>
    name ? { [name]: sectionOf(name, config, quittance.choices(), signal) } : {};

  function ping(): Readonly<Record<string, unknown>> {
    const sections = parsed();
    const ids = name ? [SECTIONS[name]] : [];
    return {
      gppVersion: "1.1",
      cmpStatus: "loaded",
      cmpDisplayStatus: display,
      signalStatus: isReady ? "ready" : "not ready",
      supportedAPIs: Object.entries(SECTIONS).map(([each, id]) => `${id}:${each}`),
      cmpId: 0,
      sectionList: ids,
      applicableSections: name ? ids : [-1],
      gppString: gppString(sections),
      parsedSections: sections,
    };
  }

  const event = (eventName: string, listenerId: number, data: unknown): unknown => ({
    eventName,
    listenerId,
    data,
    pingData: ping(),
  });

  function emit(eventName: string, data: unknown): void {
    for (const [id, callback] of listeners) {
      try {
        callback(event(eventName, id, data), true);
      } catch (error) {
        console.error(error); // one vendor's mistake is not the next one's
      }
    }
  }

  const commands: Readonly<Record<string, (callback: Callback, parameter: unknown) => void>> = {
    ping: (callback) => callback(ping(), true),
    addEventListener(callback) {
      listeners.set(++lastId, callback);
      callback(event("listenerRegistered", lastId, true), true);
    },
    removeEventListener(callback, id) {
      const isGone = listeners.delete(id as number);
      callback(event("listenerRemoved", id as number, isGone), isGone);
    },
    hasSection: (callback, prefix) => callback(Object.hasOwn(SECTIONS, String(prefix)), true),
    getSection(callback, prefix) {
      const found = parsed()[prefix as Name];
      callback(found ?? null, found !== undefined);
    },
    getField(callback, path) {
      const [prefix, field] = String(path).split(".");
      const found = parsed()[prefix as Name]?.[field ?? ""];
      callback(found ?? null, found !== undefined);
    },
  };

  const api: Api = (command, callback = () => {}, parameter = undefined) => {
    const run = Object.hasOwn(commands, command) ? commands[command] : undefined;
    if (run) run(callback, parameter);
    else callback(null, false);
  };
  page.__gpp = api;

  for (const { id, callback } of stub?.events ?? []) listeners.set(id, callback);
  for (const call of stub?.queue ?? []) api(...call);
  emit("cmpStatus", "loaded");
  if (isReady) emit("signalStatus", "ready");

  // A frame below asks through the one named so, by message; an element of that name is the sign.
  if (!window.frames["__gppLocator" as never]) addLocator();
  window.addEventListener("message", ({ data, source }) => {
    const call = (typeof data === "string" ? fromJson(data) : data)?.__gppCall;
    if (!call) return;
    const { command, parameter, version, callId } = call;
    const answer: Callback = (returnValue, success) => {
      const reply = { __gppReturn: { returnValue, success, callId } };
      const message = typeof data === "string" ? JSON.stringify(reply) : reply;
      (source as Window | null)?.postMessage(message, "*");
    };
    api(command, answer, parameter, version);
  });

  let told = isReady ? gppString(parsed()) : "";
  function settle(): void {
    const now = gppString(parsed());
    if (name && now !== told) emit("sectionChange", name);
    told = now;
    if (!isReady) {
      isReady = true;
      emit("signalStatus", "ready");
    }
  }

  quittance.on("display", ({ visible }) => {
    // The notice that the signal was honoured asks nothing.
    if (isAsking() && isReady) {
      isReady = false;
      emit("signalStatus", "not ready");
    }
    const before = display;
    display = visible ? "visible" : "hidden";
    if (display !== before) emit("cmpDisplayStatus", display);
    if (!isAsking()) settle();
  });
  quittance.on("change", () => {
    if (!quittance.visible) settle(); // a choice of the page's own switch, or in another tab
  });
}

function fromJson(text: string): { __gppCall?: never } | null {
  try {
    return JSON.parse(text);
  } catch {
    return null; // somebody else's message
  }
}

function addLocator(): void {
  const frame = document.createElement("iframe");
  frame.name = "__gppLocator";
  frame.hidden = true;
  document.documentElement.append(frame);
}

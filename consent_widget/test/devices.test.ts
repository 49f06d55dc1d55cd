/** A person with three browsers, in stories drawn by lot. Of one that goes wrong, the gist is told. */
import { beforeEach, expect, it, vi } from "vitest";
import type { Config, Mode } from "../src/config";
import * as dialog from "../src/dialog";
import { type Quittance, start } from "../src/main";
import { NOW, site, usSite } from "./fixtures";
import { DAY, honoursGpc, IDS, type Kept, Person, SOLD, TERM } from "./person";

const STORIES = 30;
const MINUTE = 60_000;
const KEY = "qt_shop";

interface Browser {
  readonly name: string;
  readonly mode: Mode;
  readonly gpc: boolean;
  /** Which of its two stores lasts until the next page. */
  readonly keeps: "both" | "cookie" | "mirror";
}

type Act = "accept" | "reject" | "withdraw" | "dismiss" | Readonly<Record<string, boolean>>;

/** A page load, and what the person does there. */
interface Step {
  readonly browser: Browser;
  /** Milliseconds since the step before. */
  readonly after: number;
  readonly isSignedIn: boolean;
  readonly act?: Act | null;
  /** Acts before the page says who is there. */
  readonly isEarly?: boolean;
  /** Records cannot be sent. */
  readonly isOffline?: boolean;
  readonly hasNewNotice?: boolean;
}

/** Mulberry32. */
function lots(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function draw(seed: number, modes: readonly Mode[]): { browsers: Browser[]; steps: Step[] } {
  const lot = lots(seed);
  const chance = (share: number): boolean => lot() < share;
  const pick = <T>(from: readonly T[]): T => from[Math.floor(lot() * from.length)] as T;
  const browsers = (["phone", "laptop", "tablet"] as const).map((name) => ({
    name,
    mode: pick(modes),
    gpc: chance({ phone: 0, laptop: 0.3, tablet: 0.9 }[name]),
    keeps: pick(["both", "both", "cookie", "mirror"] as const),
  }));
  const act = (): Act | null => {
    const all = Object.fromEntries(IDS.map((id) => [id, chance(0.5)]));
    const one = { [pick(IDS)]: chance(0.5) };
    return pick([null, "accept", "reject", "withdraw", "dismiss", all, one, one]);
  };
  const step = (): Step => ({
    browser: pick(browsers),
    after: chance(0.15) ? lot() * 100 * DAY : (6 + lot() * 60) * MINUTE,
    isSignedIn: chance(0.8),
    act: chance(0.6) ? act() : null,
    isEarly: chance(0.5),
    isOffline: chance(0.1),
    hasNewNotice: chance(0.06),
  });
  return { browsers, steps: Array.from({ length: 14 }, step) };
}

/** What a browser has while no page is open. */
class Profile {
  cookie = "";
  items: Record<string, string> = {};
  readonly visitors = new Set<string>();

  open(): void {
    localStorage.clear();
    for (const [key, value] of Object.entries(this.items)) localStorage.setItem(key, value);
    document.cookie = `${KEY}=${this.cookie}; Path=/; Secure; Max-Age=${this.cookie ? 1e8 : 0}`;
  }

  close(keeps: Browser["keeps"]): void {
    this.cookie = keeps === "mirror" ? "" : (/qt_shop=([^;]*)/.exec(document.cookie)?.[1] ?? "");
    this.items = { ...localStorage };
    if (keeps === "cookie") delete this.items[KEY];
  }
}

function configOf({ mode, gpc }: Browser, notice: number): Config {
  const version = { material: `m${notice}`, notice_version: String(notice), expiry_days: TERM };
  const more = { ...version, mode, gpc, region: mode, honours_gpc: honoursGpc(mode) };
  if (mode === "opt_in") return site(more);
  return usSite({ ...more, ...(mode === "opt_out" && { reask_after_days: 365 }) });
}

/** Lets timers of the next second run, and all that waits for the network. */
async function pass(): Promise<void> {
  vi.advanceTimersByTime(1000);
  for (let turn = 0; turn < 40; turn++) await null;
}

function carryOut(page: Quittance, act: Act | null): void {
  vi.advanceTimersByTime(10);
  if (typeof act === "string") page[act]();
  else if (act) page.set(act);
}

const grants = (act: Act | null, id: string): boolean =>
  act === "accept" || (typeof act === "object" && act?.[id] === true);

/** The story up to what is wrong; null: nothing is. */
async function play(browsers: readonly Browser[], steps: readonly Step[]): Promise<string | null> {
  const person = new Person();
  const profiles = new Map(browsers.map((each) => [each, new Profile()]));
  const hasOneLaw = browsers.every(({ mode }) => mode === browsers[0]?.mode);
  const lines = browsers.map((each) => JSON.stringify(each));
  let now = NOW;

  async function load(step: Step, isQuiet: boolean): Promise<string | null> {
    const { browser, act = null, isSignedIn, isEarly, isOffline, hasNewNotice } = step;
    const profile = profiles.get(browser) as Profile;
    vi.clearAllTimers();
    now += step.after;
    vi.setSystemTime(now);
    if (hasNewNotice) person.notice++;
    vi.stubGlobal("fetch", async (address: string, { body }: { body: string }) => {
      const said = JSON.parse(body);
      profile.visitors.add(said.visitor_id);
      const isLink = address.endsWith("/link");
      if (isOffline && !isLink) throw new TypeError("offline");
      return Response.json(isLink ? person.link(said.visitor_id) : person.record(said));
    });
    const queue = (): Kept["said"][] => JSON.parse(localStorage.getItem(`${KEY}_q`) ?? "[]");
    const countRecords = (): number =>
      new Set([...person.records.map(({ said }) => said), ...queue()].map((each) => each.event_id))
        .size;
    const before = JSON.stringify(profile);
    profile.open();
    const count = countRecords();
    Reflect.deleteProperty(window, "quittance");
    document.body.replaceChildren();
    const page = start(configOf(browser, person.notice), [], async () => dialog);
    const holding = (): string => IDS.filter(page.has).join(" ");
    const atFirst = holding();
    if (isEarly) {
      await pass();
      carryOut(page, act);
    }
    if (isSignedIn) await page.identify("token");
    if (!isEarly) carryOut(page, act);
    await pass();
    const made = countRecords() - count;
    const isSent = queue().length === 0;
    profile.close(browser.keeps);
    const does = [
      isEarly && act,
      isSignedIn && "signs in",
      !isEarly && act,
      isOffline && "offline",
    ];
    const acts = does.filter(Boolean).map((each) => JSON.stringify(each));
    const day = `day ${Math.floor((now - NOW) / DAY)}, notice ${person.notice}, ${browser.name}`;
    lines.push(`${day}: ${acts.join(" ")} -> ${holding() || "nothing"}`);

    if (made > (act ? 2 : 1)) return `${made} records were made`; // one by the signal, say
    // With the term a cookie ends, and what it refuses.
    const isSame = holding() === atFirst || browser.keeps === "cookie";
    if (isQuiet && (made > 0 || !isSame || JSON.stringify(profile) !== before))
      return `nobody did anything: ${made} records, ${atFirst}, ${before}`;
    for (const id of IDS) {
      const isOn = page.has(id);
      if (!isOn && grants(act, id)) return `${id} was granted on this page`;
      if (!isSent) continue; // the next page hears of the others
      if (isOn && browser.mode === "opt_in" && !person.hasConsented(id, "opt_in"))
        return `nobody consents to ${id}`;
      if (!isSignedIn || (act && !isEarly)) continue;
      const { value } = person.lastWord(id);
      const isSignalling =
        browser.gpc && honoursGpc(browser.mode) && !person.outweighsSignal(profile.visitors);
      const isDenied = value === false || (id === SOLD && (person.signal() || isSignalling));
      if (isOn && isDenied) return `${id} is denied`;
      if (!isOn && value && !isDenied && hasOneLaw && !browser.gpc) return `${id} is granted`;
    }
    return null;
  }

  const round = browsers.map((browser) => ({ browser, after: 6 * MINUTE, isSignedIn: true }));
  const all: Step[] = [...steps, ...round, ...round, ...round, ...round];
  for (const [index, step] of all.entries()) {
    const wrong = await load(step, index >= all.length - round.length);
    if (wrong) return [...lines, `but ${wrong}`].join("\n");
  }
  return null;
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"] });
  // Pages that were left neither listen nor look.
  vi.spyOn(window, "addEventListener").mockImplementation(() => {});
  vi.spyOn(MutationObserver.prototype, "observe").mockImplementation(() => {});
  return () => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  };
});

it.each<[string, Mode[]]>([
  ["asks first", ["opt_in"]],
  ["lets people opt out", ["opt_out"]],
  ["wants people told", ["notice"]],
  ["is another in each browser", ["opt_in", "opt_out", "notice"]],
])(
  "what a person chose holds in all their browsers where the law %s",
  { timeout: 30_000 },
  async (_, modes) => {
    for (let seed = 1; seed <= STORIES; seed++) {
      const { browsers, steps } = draw(seed, modes);
      let told = await play(browsers, steps);
      let needed = steps;
      for (const step of told ? steps : []) {
        const fewer = needed.filter((each) => each !== step);
        const again = await play(browsers, fewer);
        if (again) [told, needed] = [again, fewer];
      }
      if (told) expect.fail(`story ${seed}\n${told}`);
    }
  },
);

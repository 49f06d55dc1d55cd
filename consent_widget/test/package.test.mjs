// @vitest-environment node
import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";

const run = promisify(execFile);
const widget = fileURLToPath(new URL("..", import.meta.url));
/** npm's own program; under `npx` and `npm test` the environment names it. */
const npm =
  process.env.npm_execpath ??
  join(dirname(process.execPath), "../lib/node_modules/npm/bin/npm-cli.js");

let project = "";

/** A project that has installed what `npm pack` makes, without asking a registry. */
beforeAll(async () => {
  await access(npm);
  project = await mkdtemp(join(tmpdir(), "quittance-package-"));
  const pack = [npm, "pack", "--silent", "--offline", "--pack-destination", project, widget];
  await run(process.execPath, pack, { cwd: project });
  const [tarball = ""] = await readdir(project);
  const installed = join(project, "node_modules", "quittance-widget");
  await mkdir(installed, { recursive: true });
  await run("tar", ["-xzf", join(project, tarball), "-C", installed, "--strip-components=1"]);
  await writeFile(join(project, "package.json"), '{"type": "module"}');
});

afterAll(() => rm(project, { recursive: true, force: true }));

it("holds the loader, its types and what to read, and nothing else", async () => {
  const installed = join(project, "node_modules", "quittance-widget");
  const entries = await readdir(installed, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(installed.length + 1));
  expect(files.sort()).toEqual([
    "LICENSE",
    "README.md",
    "dist/npm.js",
    "package.json",
    "types/index.d.ts",
  ]);
  expect(await readFile(join(installed, "LICENSE"), "utf8")).toBe(
    await readFile(join(widget, "../LICENSE"), "utf8"),
  );
});

it("can be imported where there is no page, and says so when it is called", async () => {
  const program =
    'import { load } from "quittance-widget";' +
    'await load({ service: "https://p.example", siteKey: "s" }).catch((e) => console.log(e.message));';
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: project,
  });
  expect(stdout).toBe("quittance: there is no page here; call load() in the browser\n");
});

const GOOD = `
import { type Change, load, type Quittance } from "quittance-widget";

const quittance: Quittance = await load({ service: "https://p.example", siteKey: "s", nonce: "n" });
const isAllowed: boolean = quittance.has("analytics");
const stop: () => void = quittance.on("change", ({ choices, reloadAdvised }: Change) =>
  console.log(choices["analytics"], reloadAdvised, isAllowed));
document.addEventListener("quittance:change", ({ detail }) => console.log(detail.method, stop));
await window.quittance?.open();
`;

it.each([
  ["a page's program", GOOD, ""],
  ["an event that does not exist", `${GOOD}quittance.on("chnage", () => {});`, "chnage"],
  ["a choice that is no boolean", `${GOOD}quittance.set({ analytics: "yes" });`, "boolean"],
  ["a member of modules only", `${GOOD}quittance.withConsent({});`, "possibly 'undefined'"],
])("types %s", async (_, program, complaint) => {
  await writeFile(join(project, "page.ts"), program);
  const options = "--strict --noEmit --target es2022 --module nodenext --lib es2022,dom --types";
  const tsc = join(widget, "node_modules", "typescript", "bin", "tsc");
  const said = await run(process.execPath, [tsc, ...options.split(" "), "", "page.ts"], {
    cwd: project,
  }).catch((error) => error);
  if (complaint) expect(said.stdout).toContain(complaint);
  else expect(said.stdout).toBe("");
});

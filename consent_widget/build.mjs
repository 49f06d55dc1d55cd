// Bundles src into dist: widget.js, the file the service puts in front of a site's configuration; dialog.js,
// which the widget imports when somebody is about to open it; a file for each module a site may turn on; and
// npm.js, the npm package's loader, left readable for whoever bundles it.
// `--check` builds in memory and fails when a committed file differs or is too large.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build, transform } from "esbuild";
import { minify } from "terser";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const target = ["chrome99", "firefox101", "safari16.4"];
/** Bytes, gzip 9. */
const BUDGETS = {
  widget: 10 * 1024,
  dialog: 5 * 1024,
  gpp: 4 * 1024,
  segment: 4 * 1024,
  // Behind the widget, whose preamble they share, these cost less than 1 kB and half of one.
  report: 1.25 * 1024,
  counts: 0.75 * 1024,
  hosts: 1.75 * 1024,
  npm: 1024,
};

const inlineCss = {
  name: "inline-css",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /\.css\?inline$/ }, ({ path }) => ({
      path: here(`src/${path.replace("?inline", "")}`),
      namespace: "css-text",
    }));
    onLoad({ filter: /.*/, namespace: "css-text" }, async ({ path }) => {
      const { code } = await transform(await readFile(path, "utf8"), {
        loader: "css",
        minify: true,
        target,
      });
      return { contents: code.trim(), loader: "text" };
    });
  },
};

async function bundle(source, { minified = true, ...shape }) {
  const result = await build({
    absWorkingDir: here("."),
    entryPoints: [source],
    bundle: true,
    minify: minified,
    write: false,
    target,
    charset: "utf8",
    legalComments: "none",
    plugins: [inlineCss],
    ...shape,
  });
  const { text } = result.outputFiles[0];
  if (!minified) return Buffer.from(text);
  // Its names compress better than esbuild's: a twenty-fifth of the first view.
  const { code } = await minify(text, { module: shape.format === "esm", ecma: 2020 });
  return Buffer.from(code);
}

/** As an object for the lines that the service puts behind it, all within one function. */
function named(bytes) {
  const text = bytes.toString();
  const [ending, name] = /export\{([\w$]+) as start\};\s*$/.exec(text) ?? [];
  if (!name) throw new Error("embed.ts does not export start alone");
  return `${text.slice(0, -ending.length)}var quittanceWidget={start:${name}};`;
}

const modules = (await readdir(here("src/modules")).catch(() => []))
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.replace(".ts", ""));
const built = {
  widget: Buffer.from(named(await bundle("src/embed.ts", { format: "esm" }))),
  dialog: await bundle("src/dialog.ts", { format: "esm" }),
  npm: await bundle("src/npm.ts", { format: "esm", minified: false }),
};
for (const name of modules)
  built[name] = await bundle(`src/modules/${name}.ts`, {
    format: "iife",
    globalName: `quittance_${name}`,
  });

const kb = (bytes) => `${(bytes / 1024).toFixed(2)} kB`;
for (const [name, bytes] of Object.entries(built)) {
  const gzip = gzipSync(bytes, { level: 9 }).length;
  const brotli = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11 },
  }).length;
  const budget = BUDGETS[name];
  console.log(`${name}.js ${kb(bytes.length)}, gzip ${kb(gzip)}, brotli ${kb(brotli)}`);
  if (gzip > budget) {
    console.error(`${name}.js is over its gzip budget of ${kb(budget)}.`);
    process.exitCode = 1;
  }
  const file = here(`dist/${name}.js`);
  if (!process.argv.includes("--check")) {
    await writeFile(file, bytes);
  } else if (!(await readFile(file).catch(() => Buffer.alloc(0))).equals(bytes)) {
    console.error(`dist/${name}.js is not what src builds: run \`npm run build\` and commit it.`);
    process.exitCode = 1;
  }
}

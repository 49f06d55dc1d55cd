// Bundles src/main.ts into dist/widget.js, the file the service puts in front of a site's configuration.
// `--check` builds in memory and fails when the committed file differs or is too large.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build, transform } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const OUTPUT = here("dist/widget.js");
const GZIP_BUDGET = 11 * 1024;
const target = ["chrome99", "firefox101", "safari16.4"];

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

const result = await build({
  absWorkingDir: here("."),
  entryPoints: ["src/main.ts"],
  bundle: true,
  minify: true,
  write: false,
  format: "iife",
  globalName: "quittanceWidget",
  target,
  charset: "utf8",
  legalComments: "none",
  plugins: [inlineCss],
});
const built = Buffer.from(result.outputFiles[0].contents);

const gzip = gzipSync(built, { level: 9 }).length;
const brotli = brotliCompressSync(built, {
  params: { [constants.BROTLI_PARAM_QUALITY]: 11 },
}).length;
const kb = (bytes) => `${(bytes / 1024).toFixed(2)} kB`;
console.log(
  `widget.js ${kb(built.length)}, gzip ${kb(gzip)} (budget ${kb(GZIP_BUDGET)}), brotli ${kb(brotli)}`,
);

if (gzip > GZIP_BUDGET) {
  console.error("The bundle is over its gzip budget.");
  process.exitCode = 1;
}
if (process.argv.includes("--check")) {
  const committed = await readFile(OUTPUT).catch(() => Buffer.alloc(0));
  if (!committed.equals(built)) {
    console.error(
      "dist/widget.js is not what src builds: run `npm run build` and commit the result.",
    );
    process.exitCode = 1;
  }
} else {
  await writeFile(OUTPUT, built);
}

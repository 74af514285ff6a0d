/** Build what browsers get: `node assets/build.mjs <folder>`. esbuild bundles and minifies; terser finds what is left. */
import { writeFile } from "node:fs/promises";
import { build } from "esbuild";
import { minify } from "terser";

const [outdir] = process.argv.slice(2);
const { outputFiles } = await build({
  entryPoints: { bridge: "assets/src/main.ts" },
  bundle: true,
  charset: "utf8",
  format: "iife",
  legalComments: "none",
  minify: true,
  outdir,
  target: "es2022",
  write: false,
});
for (const { path, text } of outputFiles) {
  const { code } = await minify(text, { ecma: 2020, module: true, compress: { passes: 3 } });
  await writeFile(path, code);
}

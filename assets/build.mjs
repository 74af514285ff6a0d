/** Build what browsers get: `node assets/build.mjs <folder>`. esbuild bundles and minifies; terser finds what is left. */
import { readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";
import { minify } from "terser";

/** Properties that nobody outside the bundle reads or writes: no wire message, no page, no browser interface has them. */
const OWN = [
  "answer", "ask", "attached", "cached", "died", "fresh", "hear", "inactivity", "isEndless", "lost", "misses", "moved", "probe",
  "receive", "renderer", "reply", "restart", "rouse", "sent", "settled", "since", "tell", "unsent", "up", "wake", "way", "welcome", "why",
]; // prettier-ignore

const [outdir] = process.argv.slice(2);
const interfaces = await Promise.all(
  ["dom", "es5", "es2015.core", "es2022.array"].map((lib) => readFile(`node_modules/typescript/lib/lib.${lib}.d.ts`, "utf8")),
);
for (const name of OWN) {
  if (new RegExp(`^ +(readonly )?${name}[?(<:]`, "m").test(interfaces.join())) throw new Error(`${name} is the browser's`);
}
/** The script of the bridge, that of pages with Dash's own worker, and what both have beside it in debug mode. */
for (const [name, entry, isBridge] of [
  ["bridge", "main", true],
  ["plain", "plain", false],
  ["devtools", "devtools", false],
]) {
  const { outputFiles } = await build({
    entryPoints: { [name]: `assets/src/${entry}.ts` },
    bundle: true,
    charset: "utf8",
    define: { BRIDGE: `${isBridge}` },
    format: "iife",
    legalComments: "none",
    mangleProps: new RegExp(`^(${OWN.join("|")})$`),
    minify: true,
    outdir,
    target: "es2022",
    write: false,
  });
  for (const { path, text } of outputFiles) {
    const { code } = await minify(text, { ecma: 2020, module: true, compress: { passes: 3, pure_getters: true } });
    await writeFile(path, code);
  }
}

// One stylesheet and one script for the whole site, from what the pages ask
// for. Standard input: {"css": [files], "js": [files], "words": text,
// "vendor": folder}; the result stands in the folder named by "target".
import { readFileSync, writeFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const task = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(path.join(task.vendor, "package.json"));
const esbuild = require("esbuild");
const { PurgeCSS } = require("purgecss");
mkdirSync(task.target, { recursive: true });

const quiet = { logLevel: "error", legalComments: "none", target: "es2022" };
const entry = task.css.map((file) => `@import ${JSON.stringify(file)};`);
const joined = await esbuild.build({
  ...quiet,
  stdin: { contents: entry.join("\n"), loader: "css", resolveDir: task.target },
  bundle: true,
  write: false,
  outdir: task.target,
  assetNames: "[name]",
  loader: {
    ".woff2": "file", ".svg": "dataurl", ".png": "dataurl",
  },
  external: ["*.woff", "*.ttf"], // of browsers that are no more
});
for (const file of joined.outputFiles) {
  if (!file.path.endsWith(".css")) writeFileSync(file.path, file.contents);
}
const whole = joined.outputFiles.find((file) => file.path.endsWith(".css"));
const [kept] = await new PurgeCSS().purge({
  css: [{ raw: whole.text }],
  content: [{ raw: task.words, extension: "words" }],
  extractors: [{ extensions: ["words"], extractor: (t) => t.split("\n") }],
  keyframes: true,
  safelist: { standard: ["*", "html", "body", /^:/], greedy: [/data-theme/] },
});
const fonts = /,\s*url\([^)]*\.(?:woff|ttf)["']?\)\s*format\(["'][a-z]+["']\)/g;
const small = await esbuild.transform(kept.css.replace(fonts, ""), {
  ...quiet, loader: "css", minify: true,
});
writeFileSync(path.join(task.target, "site.css"), small.code);

// Classic scripts that share their top level: joined in order, not wrapped.
const parts = task.js.map((file) => readFileSync(file, "utf8"));
const script = await esbuild.transform(parts.join("\n;\n"), {
  ...quiet, loader: "js", minify: true,
});
writeFileSync(path.join(task.target, "site.js"), script.code);
for (const [name, file] of Object.entries(task.scripts ?? {})) {
  const one = await esbuild.transform(readFileSync(file, "utf8"), {
    ...quiet, loader: "js", minify: true,
  });
  writeFileSync(path.join(task.target, name), one.code);
}

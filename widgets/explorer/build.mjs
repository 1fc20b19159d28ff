// Bundles src/ into geta_nb/widgets/static/explorer.js: `node build.mjs` writes, `node build.mjs --check` compares.
import { build } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../../geta_nb/widgets/static");

async function bundle() {
  const options = { bundle: true, minify: true, write: false, charset: "ascii", logLevel: "warning", legalComments: "none", target: "es2022" };
  const js = await build({ ...options, entryPoints: [join(here, "src/main.js")], format: "esm" });
  const css = await build({ ...options, entryPoints: [join(here, "src/explorer.css")] });
  const note = "/* Built from widgets/explorer; bundles @dagrejs/dagre and @dagrejs/graphlib (MIT), see explorer.LICENSES.txt */\n";
  return { "explorer.js": note + js.outputFiles[0].text, "explorer.css": css.outputFiles[0].text, "explorer.LICENSES.txt": licences() };
}

function licences() {
  const parts = ["dagre", "graphlib"].map((name) => {
    const folder = join(here, "node_modules/@dagrejs", name);
    const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    return `@dagrejs/${name} ${version}\n\n${readFileSync(join(folder, "LICENSE"), "utf8").trim()}\n`;
  });
  return `explorer.js contains the following packages.\n\n${parts.join("\n----\n\n")}`;
}

const files = await bundle();
for (const [name, text] of Object.entries(files)) {
  const path = join(target, name);
  if (!process.argv.includes("--check")) writeFileSync(path, text);
  else if (readFileSync(path, "utf8") !== text) {
    console.error(`${name} is not what the sources give: run \`make widgets\` and commit it`);
    process.exitCode = 1;
  }
}

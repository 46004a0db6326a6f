// Copies the modules of the study browser beside index.js and react.js: the page and the package are one source.
import { copyFile, readdir } from "node:fs/promises";

const from = new URL("../../graph/web/static/client/", import.meta.url);
const to = new URL("src/", import.meta.url);

for (const name of await readdir(from)) await copyFile(new URL(name, from), new URL(name, to));

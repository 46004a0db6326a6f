// The DICOM header as a table that can be searched, from the DICOM JSON model (PS3.18 F).
import { graphql } from "./api.js";
import { byId, debounce, el } from "./dom.js";
import { count } from "./format.js";

const TAGS = "query Tags($id: ID!) { node(id: $id) { ... on Instance { tags } } }";
let names = null; // Tag -> name (PS3.6); read with the first header.
let shown = null;

/** Show the header of an instance; a header that is already shown is not queried again. */
export async function showTags(id) {
  if (id === shown) return;
  shown = id;
  const panel = byId("tags");
  panel.setAttribute("aria-busy", "true");
  try {
    names ??= readNames();
    const [{ node }, dictionary] = await Promise.all([graphql(TAGS, { id }), names]);
    if (shown !== id) return;
    fill(panel, node?.tags ? linesOf(node.tags, dictionary) : []);
  } catch (error) {
    if (shown !== id) return;
    shown = null;
    panel.replaceChildren(el("p", { class: "empty problem" }, error.message));
  } finally {
    if (shown === id || shown === null) panel.setAttribute("aria-busy", "false");
  }
}

async function readNames() {
  try {
    const answer = await fetch(new URL("element-names.json", import.meta.url));
    if (!answer.ok) throw new Error(`The names of the elements could not be loaded (HTTP status ${answer.status}).`);
    return await answer.json();
  } catch (error) {
    names = null; // Asked for again with the next header.
    throw error;
  }
}

function fill(panel, lines) {
  const asked = panel.querySelector("input")?.value ?? "";
  const rows = lines.map((line) => ({ row: rowOf(line), text: Object.values(line).join(" ").toLowerCase() }));
  const total = el("output", { class: "total" });
  const search = el("input", { type: "search", placeholder: "Search the header", "aria-label": "Search the header" });
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const { row, text } of rows) row.hidden = !words.every((word) => text.includes(word));
    total.textContent = count(rows.filter(({ row }) => !row.hidden).length, "element");
  };
  search.value = asked;
  search.addEventListener("input", debounce(filter, 60));
  filter();
  const heads = ["Tag", "Name", "VR", "Value"].map((name) => el("th", { scope: "col" }, name));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows.map(({ row }) => row)));
  const scroller = el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Elements" }, table);
  const close = el("button", { type: "button", class: "icon", "aria-label": "Close the header", onclick: () => byId("show-tags").click() }, "×");
  panel.replaceChildren(el("div", { class: "tags-head" }, search, total, close), scroller);
}

// One row per element; the items of sequences are indented.
function* walk(model, dictionary, depth) {
  for (const tag of Object.keys(model).sort()) {
    const { vr, Value: values = [] } = model[tag];
    const line = { tag: `(${tag.slice(0, 4)},${tag.slice(4)})`, name: nameOf(tag, dictionary), vr, depth };
    if (vr !== "SQ") yield { ...line, value: values.map(textOf).join(" \\ ") };
    else {
      yield { ...line, value: count(values.length, "item") };
      for (const item of values) yield* walk(item, dictionary, depth + 1);
    }
  }
}

const linesOf = (model, dictionary) => [...walk(model, dictionary, 0)];

function nameOf(tag, dictionary) {
  const repeating = `${tag.slice(0, 2)}XX${tag.slice(4)}`; // 60xx: overlays and their like.
  if (parseInt(tag.slice(0, 4), 16) % 2) return tag.slice(4, 6) === "00" ? "Private creator" : "Private";
  return dictionary[tag] ?? dictionary[repeating] ?? "";
}

function textOf(value) {
  if (value === null) return "";
  return typeof value === "object" ? Object.values(value).join(" = ") : String(value);
}

function rowOf({ tag, name, vr, value, depth }) {
  return el(
    "tr",
    {},
    el("td", { class: `tag-number depth-${Math.min(depth, 6)}` }, tag),
    el("td", {}, name),
    el("td", {}, vr),
    el("td", { class: "value" }, value),
  );
}

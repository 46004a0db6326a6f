// The filters of the worklist: the form, their place in the address, the arguments of the query.
import { byId, el } from "./dom.js";

const NEWEST = "STUDY_DATE DESC";
const DAY = 86_400_000; // Milliseconds.
const modalities = new Set(["CT", "MR", "US", "CR", "DX", "XA", "MG", "NM", "PT"]);

const chosen = () => [...byId("modalities").querySelectorAll("input:checked")].map((box) => box.value);

/** The values of the form as a place for the address. */
export function readFilters() {
  const period = byId("period").value;
  const between = period === "between";
  return {
    q: byId("search").value.trim(),
    modality: chosen().join(","),
    days: between ? "" : period,
    from: between ? byId("date-from").value : "",
    to: between ? byId("date-to").value : "",
    order: byId("order").value === NEWEST ? "" : byId("order").value,
  };
}

/** Fill the form from a place in the address. */
export function writeFilters({ q = "", modality = "", days = "", from = "", to = "", order = NEWEST }) {
  byId("search").value = q;
  offerModalities(modality.split(",").filter(Boolean));
  const asked = modality.split(",");
  for (const box of byId("modalities").querySelectorAll("input")) box.checked = asked.includes(box.value);
  byId("period").value = from || to ? "between" : days;
  byId("date-from").value = from;
  byId("date-to").value = to;
  byId("order").value = order;
  showState();
}

/** Add chips for modalities that the list contains. */
export function offerModalities(names) {
  for (const name of names) modalities.add(name);
  const box = byId("modalities");
  for (const name of modalities) {
    if (box.querySelector(`input[value="${CSS.escape(name)}"]`)) continue;
    const input = el("input", { type: "checkbox", name: "modality", value: name });
    box.append(el("label", { class: "chip" }, input, el("span", {}, name)));
  }
}

/** Update the parts of the form that depend on its values: date fields, sorted column, clear button. */
export function showState() {
  const place = readFilters();
  byId("between").hidden = byId("period").value !== "between";
  byId("clear-filters").hidden = !Object.values({ ...place, order: "" }).some(Boolean);
  const [field, direction] = byId("order").value.split(" ");
  for (const header of document.querySelectorAll("th[data-order]")) {
    const sorted = header.dataset.order === field;
    header.setAttribute("aria-sort", sorted ? (direction === "ASC" ? "ascending" : "descending") : "none");
  }
}

/** The arguments of Query.studies for a place. */
export function toVariables({ q, modality, days, from, to, order }, now) {
  const [field, direction] = (order || NEWEST).split(" ");
  const filter = {};
  if (q) filter.text = q;
  if (modality) filter.modalities = modality.split(",");
  if (days) filter.studyDate = { from: localDate(now - Number(days) * DAY) };
  if (from || to) filter.studyDate = { from: from || null, to: to || null };
  return { filter, order: { field, direction } };
}

// The local date: shortly after midnight the date in UTC may still be that of the day before.
function localDate(milliseconds) {
  const date = new Date(milliseconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** Sort by a column; a second click reverses the order. */
export function orderBy(field) {
  const order = byId("order");
  const first = field === "PATIENT_NAME" ? "ASC" : "DESC";
  const [current, direction] = order.value.split(" ");
  const turned = direction === "ASC" ? "DESC" : "ASC";
  order.value = `${field} ${current === field ? turned : first}`;
}

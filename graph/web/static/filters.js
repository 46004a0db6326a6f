// What the worklist is asked for: the form above it, the place in the address, the API's filter.
import { byId, el } from "./dom.js";

const NEWEST = "STUDY_DATE DESC";
const DAY = 86_400_000; // Milliseconds.
const modalities = new Set(["CT", "MR", "US", "CR", "DX", "XA", "MG", "NM", "PT"]);

const chosen = () => [...byId("modalities").querySelectorAll("input:checked")].map((box) => box.value);

/** What the form says, as a place for the address. */
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

/** Fill the form with a place of the address. */
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

/** Offer modalities that came along as chips too. */
export function offerModalities(names) {
  for (const name of names) modalities.add(name);
  const box = byId("modalities");
  for (const name of modalities) {
    if (box.querySelector(`input[value="${CSS.escape(name)}"]`)) continue;
    const input = el("input", { type: "checkbox", name: "modality", value: name });
    box.append(el("label", { class: "chip" }, input, el("span", {}, name)));
  }
}

/** Show what belongs to the choice: date fields, sorted column, the button that clears. */
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

// The date where the person is: at half past midnight UTC's is still yesterday's.
function localDate(milliseconds) {
  const date = new Date(milliseconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** Choose the order of a column's header: a second click turns it round. */
export function orderBy(field) {
  const order = byId("order");
  const first = field === "PATIENT_NAME" ? "ASC" : "DESC";
  const [current, direction] = order.value.split(" ");
  const turned = direction === "ASC" ? "DESC" : "ASC";
  order.value = `${field} ${current === field ? turned : first}`;
}

// The worklist: search while typing, infinite scrolling by cursor, new studies by subscription.
import { connection, graphql, serverNow } from "./api.js";
import { byId, debounce, el } from "./dom.js";
import { offerModalities, orderBy, readFilters, showState, toVariables, writeFilters } from "./filters.js";
import { count, number } from "./format.js";
import { notePlace } from "./place.js";
import { studyRow } from "./rows.js";

const PAGE = 40;
const MOST = 500; // The largest page that the server gives.
const TYPING_PAUSE = 150; // Milliseconds without a key before the server is asked.
const EVENTS_PAUSE = 600; // An upload of 1,000 files is many events and one look.
const POLL = 30_000; // Milliseconds between looks while there is no subscription.

export const STUDY_FIELDS = `fragment StudyFields on Study {
  id studyDate studyTime studyDescription accessionNumber modalitiesInStudy
  numberOfSeries numberOfInstances numberOfFrames updatedAt
  patientDisplayName patientBirthDate patientSex patientAge patient { patientID hasConflictingDemographics }
  thumbnail { url(maxSize: 160) }
}`;

const STUDIES = `query Worklist($first: Int!, $after: String, $filter: StudyFilter, $order: StudyOrder) {
  studies(first: $first, after: $after, filter: $filter, orderBy: $order) {
    totalCount
    pageInfo { hasNextPage endCursor }
    nodes { ...StudyFields }
  }
}
${STUDY_FIELDS}`;

const EVENTS = "subscription Changes($since: DateTime) { studyEvents(since: $since) { kind studyInstanceUID } }";

const rows = new Map(); // Node id -> table row, in the order of the list.
let asked = null; // The request under way, to cancel it when another question comes.
let next = null; // Cursor of the last row; null when there is no more.
let shown = null; // What the list shows, as text: the same question is not asked twice.
let missed = false; // Something changed that no request has asked for yet.
let connected = false;
let following = false;

export function startWorklist() {
  const changed = () => {
    showState();
    notePlace(readFilters());
    refill();
  };
  byId("search").addEventListener("input", debounce(changed, TYPING_PAUSE));
  byId("filters").addEventListener("change", changed);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    writeFilters({ order: readFilters().order || undefined });
    changed();
    byId("search").focus();
  });
  for (const header of document.querySelectorAll("th[data-order]")) {
    header.addEventListener("click", () => {
      orderBy(header.dataset.order);
      changed();
    });
  }
  byId("studies").addEventListener("keydown", moveAlong);
  new IntersectionObserver(([entry]) => entry.isIntersecting && more(), { rootMargin: "600px" }).observe(byId("list-end"));
}

/** Show the list for a place in the address. */
export function showWorklist(place) {
  document.title = "Studies";
  writeFilters(place);
  refill();
  if (missed) refresh();
}

async function refill() {
  const question = toVariables(readFilters(), Date.now());
  if (JSON.stringify(question) === shown) return;
  shown = JSON.stringify(question);
  missed = false;
  await ask(question, { first: PAGE }, (nodes) => replaceRows(nodes));
}

async function more() {
  if (next === null || asked !== null) return;
  await ask(JSON.parse(shown), { first: PAGE, after: next }, (nodes) => addRows(nodes));
}

/** Query the displayed list again: new studies appear, deleted ones disappear. Behind a study it waits. */
async function refresh() {
  missed = asked !== null || byId("worklist-view").hidden;
  if (shown === null || missed) return;
  if (rows.size > MOST) {
    offerBeginning();
    return fillScreen();
  }
  const first = Math.max(rows.size, PAGE);
  const known = new Set(rows.keys());
  await ask(JSON.parse(shown), { first }, (nodes) => replaceRows(nodes, known));
}

// A list of this length needs several pages, and rows must not move while somebody reads them.
function offerBeginning() {
  const show = () => {
    scrollTo(0, 0);
    fillAnew();
  };
  byId("news").replaceChildren(el("button", { type: "button", onclick: show }, "There are new or changed studies: show the list from the top"));
}

function fillAnew() {
  shown = null;
  refill();
}

async function ask(question, page, show) {
  asked?.abort();
  const mine = (asked = new AbortController());
  const begun = performance.now();
  let isFailed = false;
  const table = document.querySelector(".studies");
  table.setAttribute("aria-busy", "true");
  try {
    const { studies } = await graphql(STUDIES, { ...question, ...page }, { signal: mine.signal });
    next = studies.pageInfo.hasNextPage ? studies.pageInfo.endCursor : null;
    show(studies.nodes);
    describe(studies.totalCount);
  } catch (error) {
    isFailed = error.name !== "AbortError";
    if (isFailed) explain(error);
  } finally {
    if (!following) followEvents(isFailed ? null : new Date(serverNow() - (performance.now() - begun)));
    if (asked === mine) {
      asked = null;
      table.setAttribute("aria-busy", "false");
      if (missed) refresh();
      else fillScreen();
    }
  }
}

// The observer reports changes only: if the end is still visible, load another page.
function fillScreen() {
  const end = byId("list-end");
  if (end.offsetParent && end.getBoundingClientRect().top < innerHeight + 600) more();
}

// `known` are the studies that were listed before; other studies are marked as new.
function replaceRows(nodes, known = null) {
  const focused = document.activeElement?.closest("tr")?.dataset.id;
  rows.clear();
  byId("news").replaceChildren();
  addRows(nodes, known);
  byId("studies").replaceChildren(...rows.values());
  rows.get(focused)?.querySelector("a").focus({ preventScroll: true });
}

function addRows(nodes, known = null) {
  for (const study of nodes) {
    const row = studyRow(study, serverNow());
    row.classList.toggle("arrived", known !== null && !known.has(study.id));
    rows.set(study.id, row);
  }
  byId("studies").append(...nodes.map((study) => rows.get(study.id)));
  offerModalities(nodes.flatMap((study) => study.modalitiesInStudy));
}

function describe(total) {
  byId("total").textContent = count(total, "study", "studies");
  const filtered = !byId("clear-filters").hidden;
  const nothing = filtered ? "No study matches these filters." : "No studies yet. Drop DICOM files, folders or ZIP archives on this page.";
  const end = next ? `${number(rows.size)} of ${number(total)}` : "";
  byId("list-end").replaceChildren(total === 0 ? el("p", { class: "empty" }, nothing) : end);
}

function explain(error) {
  next = null;
  byId("list-end").replaceChildren(
    el("p", { class: "empty problem" }, error.message),
    el("button", { type: "button", onclick: fillAnew }, "Try again"),
  );
}

// Arrow keys move from link to link; the browser handles Enter.
function moveAlong(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const link = step && event.target.closest("tr")?.[step]?.querySelector("a");
  if (!link) return;
  event.preventDefault();
  link.focus();
}

// `since`: when the list was asked for, null if there is none. What changed between the list and the
// subscription is sent first, so that the list need not be asked for twice.
function followEvents(since) {
  following = true;
  const look = debounce(refresh, EVENTS_PAUSE);
  const live = byId("live");
  connection.subscribe(EVENTS, {
    variables: () => ({ since }),
    onData: look,
    onState: (isConnected) => {
      if (isConnected && !since) look(); // Changes before the connection sent no event.
      if (isConnected) since = null;
      connected = isConnected;
      live.textContent = connected ? "Live" : "";
      live.title = connected ? "New studies appear automatically" : "";
    },
  });
  setInterval(() => connected || document.hidden || refresh(), POLL);
}

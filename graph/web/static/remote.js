// Other archives: search them, and fetch what they have.
import { connection, graphql } from "./api.js";
import { el, notify } from "./dom.js";
import { field, form } from "./forms.js";
import { count, dateTime } from "./format.js";
import { modalitiesOf } from "./modalities.js";
import { hashOf } from "./place.js";

const MODALITIES = "query Modalities { modalities { name aeTitle description allows } }";
const ECHO = "mutation Echo($name: String!) { echoModality(name: $name) { succeeded milliseconds error { message } } }";
const STUDIES = `query RemoteStudies($modality: String!, $filter: RemoteFilter!) {
  remoteStudies(modality: $modality, filter: $filter) {
    isIncomplete
    nodes {
      studyInstanceUID patientID patientDisplayName patientBirthDate studyDate studyTime studyDescription
      accessionNumber modalitiesInStudy numberOfInstances
      study { id numberOfInstances } job { id state fraction }
    }
  }
}`;
const RETRIEVE = `mutation Retrieve($modality: String!, $uid: String!) {
  retrieveStudies(modality: $modality, studyInstanceUIDs: [$uid]) { id state fraction }
}`;
const JOB = `subscription RetrieveJob($id: ID!) {
  jobEvents(id: $id) { id state fraction completed total error { message } results { id } }
}`;
const RUNS = new Set(["QUEUED", "RUNNING", "CANCELLING"]);

const followed = new Set(); // Ends of the subscriptions of jobs on this page.

export async function showRemote(panel, { role }) {
  const search = el("div", {});
  const known = el("div", {});
  const showSearch = async () => search.replaceChildren(...(await searchOf(role)));
  const showKnown = async () => {
    const isOpen = known.querySelector("details")?.open;
    known.replaceChildren(await modalitiesOf(() => Promise.all([showKnown(), showSearch()])));
    if (isOpen) known.querySelector("details").open = true;
  };
  await Promise.all([showSearch(), role === "ADMIN" && showKnown()]);
  panel.replaceChildren(search, known);
}

async function searchOf(role) {
  const { modalities } = await graphql(MODALITIES);
  const archives = modalities.filter(({ allows }) => allows.includes("FIND"));
  if (archives.length === 0) {
    const text = role === "ADMIN" ? "No archive is declared that may be asked." : "No other archive is known. An administrator declares one here.";
    return [el("p", { class: "empty" }, text)];
  }
  const found = el("div", { class: "found", "aria-live": "polite" });
  const options = archives.map(({ name, description }) => [name, description ? `${name} (${description})` : name]);
  const fields = [
    field("Archive", "modality", { options }),
    field("Patient name", "patientName", { placeholder: "Huber*" }),
    field("Patient ID", "patientID"),
    field("Accession number", "accessionNumber"),
    field("From", "from", { type: "date" }),
    field("to", "to", { type: "date" }),
  ];
  const search = form({ "aria-label": "Search another archive" }, fields, "Search", async (values) => {
    const { modality, from, to, ...filter } = values;
    if (from || to) filter.studyDate = { from: from ?? null, to: to ?? null };
    found.replaceChildren(el("p", { class: "empty" }, `${modality} is being asked …`));
    try {
      const { remoteStudies } = await graphql(STUDIES, { modality, filter });
      showFound(found, modality, remoteStudies);
    } catch (error) {
      found.replaceChildren();
      throw error;
    }
  });
  const test = async () => {
    const name = search.elements.modality.value;
    const { echoModality: echo } = await graphql(ECHO, { name });
    notify(echo.succeeded ? `${name} answers after ${echo.milliseconds} ms.` : echo.error.message);
  };
  search.querySelector("button").after(el("button", { type: "button", onclick: () => test().catch((error) => notify(error.message)) }, "Test the connection"));
  return [search, found];
}

export function leaveRemote() {
  for (const stop of followed) stop();
  followed.clear();
}

function showFound(found, modality, { nodes, isIncomplete }) {
  const note = isIncomplete ? "There is more than is listed. Narrow the search." : null;
  const heads = ["Patient", "Study date", "Modality", "Description", "Objects", "Actions"].map((name) => el("th", { scope: "col" }, name));
  const rows = nodes.map((study) => studyRow(modality, study));
  found.replaceChildren(
    el("p", {}, count(nodes.length, "study", "studies"), note ? el("span", { class: "flag" }, ` ${note}`) : null),
    nodes.length ? el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)) : "",
  );
}

function studyRow(modality, remote) {
  const action = el("td", {});
  const cell = (text, detail) => el("td", {}, text ?? "", detail ? el("span", { class: "detail" }, detail) : null);
  if (remote.job && RUNS.has(remote.job.state)) follow(remote.job, action);
  else offer(modality, remote, action);
  return el(
    "tr",
    {},
    cell(remote.patientDisplayName || "No name", [remote.patientID, remote.patientBirthDate].filter(Boolean).join(" · ")),
    el("td", { class: "date" }, dateTime(remote.studyDate, remote.studyTime)),
    cell(remote.modalitiesInStudy.join(" ")),
    cell(remote.studyDescription, remote.accessionNumber && `Accession ${remote.accessionNumber}`),
    cell(remote.numberOfInstances === null ? "" : String(remote.numberOfInstances)),
    action,
  );
}

// A study that is here completely is opened; one that is missing, in whole or in part, is fetched.
function offer(modality, { studyInstanceUID: uid, study, numberOfInstances }, cell) {
  const isHere = study && numberOfInstances !== null && study.numberOfInstances >= numberOfInstances;
  const fetchIt = async () => {
    try {
      follow((await graphql(RETRIEVE, { modality, uid })).retrieveStudies, cell);
    } catch (error) {
      notify(error.message);
    }
  };
  cell.replaceChildren(
    study ? el("a", { href: hashOf({ study: study.id }) }, "Open") : "",
    isHere ? "" : el("button", { type: "button", onclick: fetchIt }, study ? "Fetch the rest" : "Fetch"),
  );
}

function follow(job, cell) {
  const show = ({ state, fraction, error, results = [] }) => {
    const isRunning = RUNS.has(state);
    cell.replaceChildren(
      isRunning ? el("progress", { max: "1", value: fraction, "aria-label": "Progress" }) : "",
      ...results.map(({ id }) => el("a", { href: hashOf({ study: id }) }, "Open")),
      isRunning || state === "SUCCEEDED" ? "" : el("span", { class: "problem" }, error?.message ?? state.toLowerCase()),
    );
    return isRunning;
  };
  show(job);
  const end = connection.subscribe(JOB, {
    variables: { id: job.id },
    onData: ({ jobEvents }) => {
      if (show(jobEvents)) return;
      end();
      followed.delete(end);
    },
  });
  followed.add(end);
}

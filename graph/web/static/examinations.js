// The modality worklist: planned examinations that scanners ask for (PS3.4 K).
import { graphql } from "./api.js";
import { el, notify } from "./dom.js";
import { field, form } from "./forms.js";
import { count, dateTime } from "./format.js";
import { hashOf } from "./place.js";

const LIST = `query ModalityWorklist($filter: WorklistFilter) {
  worklist(first: 200, filter: $filter) {
    totalCount
    nodes {
      id status accessionNumber patientID patientDisplayName patientBirthDate modality scheduledStationAETitle
      scheduledProcedureStepStartDate scheduledProcedureStepStartTime scheduledProcedureStepDescription study { id }
    }
  }
}`;
const CREATE = "mutation Plan($input: WorklistEntryInput!) { createWorklistEntry(input: $input) { id } }";
const STATUS = "mutation SetStatus($id: ID!, $status: WorklistStatus!) { setWorklistStatus(id: $id, status: $status) { id } }";
const DELETE = "mutation DeleteEntry($id: ID!) { deleteWorklistEntry(id: $id) }";

const OPEN = ["SCHEDULED", "IN_PROGRESS"];
const STATES = { SCHEDULED: "planned", IN_PROGRESS: "in progress", COMPLETED: "done", DISCONTINUED: "discontinued" };
const SEXES = [["", ""], ["F", "female"], ["M", "male"], ["O", "other"]];

export async function showExaminations(panel, { canUpload }) {
  const list = el("div", { class: "found" });
  const all = el("input", { type: "checkbox", onchange: () => read().catch((error) => notify(error.message)) });
  const read = async () => {
    const filter = all.checked ? {} : { statuses: OPEN };
    const { worklist } = await graphql(LIST, { filter });
    fill(list, worklist, canUpload, read);
  };
  const plan = canUpload ? el("details", {}, el("summary", {}, "Plan an examination"), planForm(read)) : "";
  panel.replaceChildren(plan, el("label", { class: "check" }, all, " Show finished ones too"), list);
  await read();
}


function planForm(read) {
  const fields = [
    field("Accession number", "accessionNumber", { required: true, maxlength: "16" }),
    field("Patient ID", "patientID", { required: true, maxlength: "64" }),
    field("Issuer of patient ID", "issuerOfPatientID", { maxlength: "64" }),
    field("Patient name", "patientName", { required: true, placeholder: "Family^Given" }),
    field("Birth date", "patientBirthDate", { type: "date" }),
    field("Sex", "patientSex", { options: SEXES }),
    field("Modality", "modality", { required: true, placeholder: "CT", maxlength: "16" }),
    field("Station AE title", "scheduledStationAETitle", { maxlength: "16" }),
    field("Date", "scheduledProcedureStepStartDate", { type: "date", required: true }),
    field("Time", "scheduledProcedureStepStartTime", { type: "time" }),
    field("Description", "scheduledProcedureStepDescription", { maxlength: "64" }),
  ];
  return form({ "aria-label": "Plan an examination" }, fields, "Plan", async (input, element) => {
    await graphql(CREATE, { input });
    element.reset();
    await read();
  });
}

function fill(list, { nodes, totalCount }, canUpload, read) {
  const heads = ["Start", "Patient", "Modality", "Description", "Status", "Actions"].map((name) => el("th", { scope: "col" }, name));
  const rows = nodes.map((entry) => entryRow(entry, canUpload, read));
  list.replaceChildren(
    el("p", {}, count(totalCount, "examination")),
    nodes.length ? el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)) : "",
  );
}

function entryRow(entry, canUpload, read) {
  const act = (query, variables) => async () => {
    try {
      await graphql(query, { id: entry.id, ...variables });
      await read();
    } catch (error) {
      notify(error.message);
    }
  };
  const button = (text, onclick) => el("button", { type: "button", "aria-label": `${text} ${entry.accessionNumber}`, onclick }, text);
  const cell = (text, detail) => el("td", {}, text ?? "", detail ? el("span", { class: "detail" }, detail) : null);
  const isOpen = OPEN.includes(entry.status);
  return el(
    "tr",
    {},
    el("td", { class: "date" }, dateTime(entry.scheduledProcedureStepStartDate, entry.scheduledProcedureStepStartTime)),
    cell(entry.patientDisplayName || "No name", [entry.patientID, entry.patientBirthDate].filter(Boolean).join(" · ")),
    cell(entry.modality, entry.scheduledStationAETitle),
    cell(entry.scheduledProcedureStepDescription, `Accession ${entry.accessionNumber}`),
    cell(STATES[entry.status]),
    el(
      "td",
      {},
      entry.study ? el("a", { href: hashOf({ study: entry.study.id }) }, "Open") : "",
      canUpload && isOpen ? button("Done", act(STATUS, { status: "COMPLETED" })) : "",
      canUpload && isOpen ? button("Discontinue", act(STATUS, { status: "DISCONTINUED" })) : "",
      canUpload ? button("Delete", act(DELETE, {})) : "",
    ),
  );
}

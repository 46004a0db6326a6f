// What may be done with a study besides looking: send it to a modality, make an anonymous copy.
import { graphql } from "./api.js";
import { byId, el } from "./dom.js";
import { field, form } from "./forms.js";
import { hashOf } from "./place.js";

const MODALITIES = "query SendTargets { modalities { name description allows } }";
const SEND = `mutation Send($modality: String!, $ids: [ID!]!, $commit: Boolean!) {
  sendStudies(modality: $modality, ids: $ids, commit: $commit) { id }
}`;
const ANONYMIZE = "mutation Anonymize($id: ID!, $input: AnonymizeInput!) { anonymizeStudy(id: $id, input: $input) { id } }";

/** Ask where a study goes, and send it as a job. */
export async function openSend(study) {
  const { modalities } = await graphql(MODALITIES);
  const targets = modalities.filter(({ allows }) => allows.includes("STORE"));
  if (targets.length === 0) return open("Send this study", el("p", {}, "No modality may be sent to. An administrator declares one with the mutation declareModality."));
  const options = targets.map(({ name, description }) => [name, description ? `${name} (${description})` : name]);
  const fields = [
    field("To", "modality", { options }),
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "commit" }), " Ask it to confirm that it keeps the images"),
  ];
  return open("Send this study", form({}, fields, "Send", async ({ modality, commit }) => {
    await graphql(SEND, { modality, ids: [study.id], commit: commit === "on" });
    follow();
  }));
}

/** Ask how, and make an anonymous copy of a study as a job. */
export function openAnonymize(study) {
  const fields = [
    el("p", { class: "hint" }, "The study stays as it is; the copy has other UIDs, and no names, dates of birth or identifiers."),
    field("Patient ID of the copy", "patientID", { placeholder: "made up, the same for each patient", maxlength: "64" }),
    field("Patient name of the copy", "patientName", { maxlength: "64" }),
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "keepDates" }), " Keep the date of the study"),
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "confirmBurnedIn" }), " I looked at the images: none shows the patient's name"),
  ];
  return open("Make an anonymous copy", form({}, fields, "Make the copy", async ({ keepDates, confirmBurnedIn, ...values }) => {
    const input = { ...values, confirmBurnedIn: confirmBurnedIn === "on", keep: keepDates ? ["StudyDate"] : [] };
    await graphql(ANONYMIZE, { id: study.id, input });
    follow();
  }));
}

function open(title, content) {
  byId("task-title").textContent = title;
  byId("task-body").replaceChildren(content);
  byId("task").showModal();
}

// The job is seen where all jobs are.
function follow() {
  byId("task").close();
  location.hash = hashOf({ tab: "jobs" });
}

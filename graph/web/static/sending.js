// What may be done with studies besides looking: send them to a modality, make an anonymous copy.
import { graphql } from "./api.js";
import { el } from "./dom.js";
import { check, closeTask, field, form, openTask } from "./forms.js";
import { count } from "./format.js";
import { hashOf } from "./place.js";

const MODALITIES = "query SendTargets { modalities { name description allows } }";
const SEND = `mutation Send($modality: String!, $ids: [ID!]!, $commit: Boolean!) {
  sendStudies(modality: $modality, ids: $ids, commit: $commit) { id }
}`;
const ANONYMIZE = "mutation Anonymize($id: ID!, $input: AnonymizeInput!) { anonymizeStudy(id: $id, input: $input) { id } }";

/** Ask where studies go, and send them as a job. */
export async function openSend(ids) {
  const { modalities } = await graphql(MODALITIES);
  const targets = modalities.filter(({ allows }) => allows.includes("STORE"));
  const title = ids.length === 1 ? "Send this study" : `Send ${count(ids.length, "study", "studies")}`;
  if (targets.length === 0) return openTask(title, el("p", {}, "No modality may be sent to. An administrator declares one under Network, Remote."));
  const options = targets.map(({ name, description }) => [name, description ? `${name} (${description})` : name]);
  const fields = [
    field("To", "modality", { options }),
    check("Ask it to confirm that it keeps the images", "commit"),
  ];
  return openTask(title, form({}, fields, "Send", async ({ modality, commit }) => {
    await graphql(SEND, { modality, ids, commit: commit === "on" });
    followJobs();
  }));
}

/** Ask how, and make an anonymous copy of a study as a job. */
export function openAnonymize(study) {
  const fields = [
    el("p", { class: "hint" }, "The study stays as it is; the copy has other UIDs, and no names, dates of birth or identifiers."),
    field("Patient ID of the copy", "patientID", { placeholder: "made up, the same for each patient", maxlength: "64" }),
    field("Patient name of the copy", "patientName", { maxlength: "64" }),
    check("Keep the date of the study", "keepDates"),
    check("I looked at the images: none shows the patient's name", "confirmBurnedIn"),
  ];
  return openTask("Make an anonymous copy", form({}, fields, "Make the copy", async ({ keepDates, confirmBurnedIn, ...values }) => {
    const input = { ...values, confirmBurnedIn: confirmBurnedIn === "on", keep: keepDates ? ["StudyDate"] : [] };
    await graphql(ANONYMIZE, { id: study.id, input });
    followJobs();
  }));
}

/** Show all jobs: what was just started is the first of them. */
export function followJobs() {
  closeTask();
  location.hash = hashOf({ tab: "jobs" });
}

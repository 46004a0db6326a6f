// Deleting a study or a series, after a question.
import { graphql } from "./api.js";
import { byId, notify } from "./dom.js";
import { count, patientName, seriesTitle } from "./format.js";

const DELETE = {
  Study: "mutation DeleteStudy($id: ID!) { deleteStudy(id: $id) { deletedInstances } }",
  Series: "mutation DeleteSeries($id: ID!) { deleteSeries(id: $id) { deletedInstances } }",
};

/** Ask, and delete a study. @returns {Promise<boolean>} whether it was deleted */
export function deleteStudy(study) {
  const objects = study.series.reduce((sum, { numberOfInstances }) => sum + numberOfInstances, 0);
  const what = `the study “${study.studyDescription || "No description"}” of ${study.studyDate ?? "an unknown date"}`;
  return ask("Study", study.id, `${patientName(study)}, ${study.patient.patientID || "no ID"}: ${what}, ${count(study.series.length, "series", "series")} with ${count(objects, "object")}.`);
}

/** Ask, and delete a series. @returns {Promise<boolean>} whether it was deleted */
export function deleteSeries(study, series) {
  return ask("Series", series.id, `${patientName(study)}, ${study.patient.patientID || "no ID"}: the series “${seriesTitle(series)}” with ${count(series.numberOfInstances, "object")}.`);
}

async function ask(level, id, sentence) {
  const dialog = byId("delete");
  byId("delete-title").textContent = level === "Study" ? "Delete this study?" : "Delete this series?";
  byId("delete-what").textContent = sentence;
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "delete") return false;
  try {
    await graphql(DELETE[level], { id });
    return true;
  } catch (error) {
    notify(error.message);
    return false;
  }
}

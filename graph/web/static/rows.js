// One row of the worklist.
import { graphql } from "./api.js";
import { el } from "./dom.js";
import { ago, dateTime, number, patientDetails, patientName } from "./format.js";
import { choiceBox } from "./selection.js";
import { thumbnail } from "./thumbnail.js";
import { hashOf } from "./place.js";

const RENEW = `query Thumbnail($id: ID!) {
  node(id: $id) { ... on Study { thumbnail { url(maxSize: 160) } } }
}`;

const cell = (name, ...children) => el("td", { role: "cell", class: name }, ...children);
const orMissing = (text, without) => el("span", { class: text ? null : "missing" }, text || without);

/** The row of a study; `now` in milliseconds of the server's clock. */
export function studyRow(study, now) {
  const { patient, id } = study;
  const renew = async () => (await graphql(RENEW, { id })).node?.thumbnail;
  return el(
    "tr",
    { role: "row", "data-id": id },
    cell("picture", choiceBox(id, patientName(study)), thumbnail(study.thumbnail, renew)),
    el(
      "th",
      { role: "rowheader", scope: "row", class: "patient" },
      el("a", { href: hashOf({ study: id }) }, patientName(study)),
      el("span", { class: "detail" }, patientDetails(study)),
      patient.hasConflictingDemographics
        ? el("span", { class: "flag", title: "Files with this patient ID have different names or birth dates" }, "check identity")
        : null,
    ),
    cell("date", orMissing(dateTime(study.studyDate, study.studyTime), "no date")),
    cell("modality", ...study.modalitiesInStudy.map((name) => el("span", { class: "tag" }, name))),
    cell(
      "description",
      orMissing(study.studyDescription, "no description"),
      study.accessionNumber ? el("span", { class: "detail" }, `Accession ${study.accessionNumber}`) : null,
    ),
    cell("number series", number(study.numberOfSeries)),
    cell("number images", number(study.numberOfFrames)),
    cell("changed", el("time", { datetime: study.updatedAt, title: study.updatedAt }, ago(study.updatedAt, now))),
  );
}

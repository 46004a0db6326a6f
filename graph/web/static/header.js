// The header of the study page: whose study it is, and what may be done with it.
import { graphql } from "./api.js";
import { byId, el, notify } from "./dom.js";
import { dateTime, patientDetails, patientName } from "./format.js";
import { closeMenu, keepOneRow } from "./menus.js";
import { deleteSeries, deleteStudy } from "./removal.js";
import { openAnonymize, openSend } from "./sending.js";
import { openShare } from "./share.js";

// URLs are queried on click: one from the time when the page opened might have ended.
const ARCHIVE = "query Archive($id: ID!) { node(id: $id) { ... on Study { archiveUrl } ... on Series { archiveUrl } } }";

let arrange = () => {};

export function startHeader() {
  arrange = keepOneRow(byId("study-header"));
}

/** Show a header that names no study. */
export function emptyHeader() {
  document.title = "Studies";
  byId("identity").replaceChildren();
  byId("actions-menu").replaceChildren();
  for (const action of document.querySelectorAll("#study-header [data-rank]")) action.remove();
  byId("back").href = sessionStorage.getItem("worklist") ?? "#";
}

/**
 * Show the header of a study.
 * @param caller  what the caller may do: canUpload, canDelete, canDownload
 * @param chosen  the study and the series of the viewport in use, at the time of a click
 * @param onSeriesGone called with the series that was deleted
 */
export function describeStudy(study, { canUpload, canDelete, canDownload }, { chosen, onSeriesGone }) {
  emptyHeader();
  const title = [study.studyDescription || "No description", dateTime(study.studyDate, study.studyTime)].filter(Boolean).join(" · ");
  const place = [study.accessionNumber && `Accession ${study.accessionNumber}`, study.institutionName].filter(Boolean).join(" · ");
  document.title = `${patientName(study)} · ${title}`;
  byId("identity").replaceChildren(
    el("h1", {}, patientName(study), el("span", { class: "detail" }, patientDetails(study))),
    el("p", { class: "what" }, title, el("span", { class: "detail" }, place)),
  );
  const removeStudy = async () => (await deleteStudy(study)) && byId("back").click();
  const removeSeries = async () => {
    const { study: owner, series } = chosen();
    if (owner.id === study.id && owner.series.length === 1) return removeStudy();
    if (await deleteSeries(owner, series)) onSeriesGone(series);
  };
  byId("identity").after(
    ...(canUpload ? [action("open-share", "Share", () => openShare(study.id), 2)] : []),
    ...(canDownload ? [action("download", "Download ZIP", () => download(study.id), 1)] : []),
  );
  byId("actions-menu").replaceChildren(
    ...(canDownload ? [action("download-series", "Download this series", () => download(chosen().series.id))] : []),
    ...(canUpload && canDownload ? [action("send-study", "Send …", () => openSend([study.id]).catch((error) => notify(error.message)))] : []),
    ...(canUpload && canDownload ? [action("anonymize-study", "Make an anonymous copy …", () => openAnonymize(study))] : []),
    ...(canDelete ? [action("delete-series", "Delete this series …", removeSeries)] : []),
    ...(canDelete ? [action("delete-study", "Delete this study …", removeStudy)] : []),
  );
  arrange();
}

function action(id, text, act, rank = null) {
  const onclick = (event) => {
    closeMenu(event.target);
    act();
  };
  return el("button", { type: "button", id, "data-rank": rank, onclick }, text);
}

async function download(id) {
  try {
    const { node } = await graphql(ARCHIVE, { id });
    if (!node?.archiveUrl) throw new Error("This was deleted.");
    el("a", { href: node.archiveUrl, download: "" }).click();
  } catch (error) {
    notify(error.message);
  }
}

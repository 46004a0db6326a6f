// The study page: header, strip of series, and the link between viewer and address.
import { graphql } from "./api.js";
import { Cine } from "./cine.js";
import { closeDocument, startDocuments } from "./documents.js";
import { byId, el, notify } from "./dom.js";
import { count, dateTime, describeLoss, number, patientDetails, patientName } from "./format.js";
import { listenToStage } from "./gestures.js";
import { listenToKeys } from "./keys.js";
import { thumbnail } from "./pictures.js";
import { hashOf, notePlace } from "./place.js";
import { Stack } from "./stack.js";
import { openShare } from "./share.js";
import { showTags } from "./tags.js";
import { Viewer } from "./viewer.js";
import { describeWindow, hasWindow, parseWindow, presetsFor } from "./windows.js";

const STUDY = `query StudyPage($id: ID!) {
  viewer { canUpload canDownload }
  node(id: $id) {
    ... on Study {
      id studyDate studyTime studyDescription accessionNumber institutionName
      patientDisplayName patientBirthDate patientSex patientAge patient { patientID hasConflictingDemographics }
      series {
        id seriesNumber modality seriesDescription numberOfInstances numberOfFrames
        thumbnail { url(maxSize: 192) }
      }
      priors(first: 50) { id studyDate studyDescription modalitiesInStudy }
    }
  }
}`;

const THUMBNAIL = `query SeriesThumbnail($id: ID!) {
  node(id: $id) { ... on Series { thumbnail { url(maxSize: 192) } } }
}`;

// The URL is queried on click: a URL from the time when the page opened might have expired.
const ARCHIVE = "query Archive($id: ID!) { node(id: $id) { ... on Study { archiveUrl } } }";

const viewer = new Viewer();
let cine;
let wanted = null; // The place that was asked for last: answers to earlier questions are dropped.
let wantedSeries = null;
let study = null;
let series = null;
let zoom = "fit";

export function startStudy() {
  cine = new Cine(viewer);
  const stop = () => cine.stop();
  const isTouched = matchMedia("(pointer: coarse)").matches; // Fingers scroll; a mouse has a wheel.
  if (isTouched) document.querySelector('input[name="tool"][value="scroll"]').checked = true;
  listenToStage(viewer, { onMove: stop, onWindow: setWindow });
  listenToKeys({ viewer, cine, setWindow, presets, toggleZoom, toggleTags, stepSeries });
  viewer.addEventListener("moved", moved);
  viewer.addEventListener("shown", describePicture);
  startDocuments(viewer);
  byId("preset").addEventListener("change", (event) => setWindow(presetOf(event.target.value)));
  byId("zoom").addEventListener("change", (event) => setZoom(event.target.value));
  byId("show-tags").addEventListener("click", () => toggleTags());
  byId("show-keys").addEventListener("click", () => byId("keys").showModal());
  byId("position").addEventListener("input", (event) => {
    stop();
    viewer.goTo(event.target.valueAsNumber - 1);
  });
}

/** Show the place from the address. */
export async function showStudy(place) {
  const isOther = study?.id !== place.study;
  if (isOther) leaveStudy();
  const mine = (wanted = place);
  try {
    if (isOther) await readStudy(place);
    if (wanted !== mine) return; // Another place was chosen meanwhile.
    // The links of the strip name only the series: zoom and header panel stay as they are.
    if (isOther || place.instance) {
      setZoom(place.zoom === "1" ? "1" : "fit", { isNoted: false });
      toggleTags(place.tags === "1", { isNoted: false });
    }
    const asked = study.series.find((one) => one.id === place.series);
    await openSeries(asked ?? study.series.find((one) => one.numberOfFrames > 0) ?? study.series[0], place);
  } catch (error) {
    if (wanted !== mine) return;
    byId("reason").textContent = error.message;
    byId("reason").hidden = false;
  }
}

async function readStudy(place) {
  const { node, viewer: caller } = await graphql(STUDY, { id: place.study });
  if (wanted !== place) return;
  if (!node?.id) throw new Error("There is no such study. It may have been deleted.");
  study = node;
  describeStudy(caller);
}

/** Stop all activity of the study page before the list is shown. */
export function leaveStudy() {
  cine.stop();
  viewer.close();
  closeDocument();
  wanted = wantedSeries = study = series = null;
  byId("strip").replaceChildren();
  byId("study-header").replaceChildren(backLink());
  byId("reason").hidden = true;
  for (const corner of document.querySelectorAll(".corner")) corner.replaceChildren();
}

async function openSeries(chosen, { instance, frame, window } = {}) {
  wantedSeries = chosen;
  const stack = series === chosen && viewer.stack ? viewer.stack : await new Stack(chosen.id).load();
  if (wantedSeries !== chosen) return;
  const middle = Math.floor(stack.length / 2);
  if (series !== chosen) cine.stop();
  series = chosen;
  for (const link of byId("strip").querySelectorAll("a[data-series]")) {
    const isChosen = link.dataset.series === chosen.id;
    link.setAttribute("aria-current", String(isChosen));
    if (isChosen) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const position = instance ? stack.find(instance, Math.max(0, Number(frame ?? 1) - 1)) : cineStart(stack, middle);
  await viewer.open(stack, position, parseWindow(window, chosen.modality));
}

const presets = () => presetsFor(series?.modality, viewer.place?.instance);
const presetOf = (key) => presets().find((preset) => preset.key === key) ?? parseWindow(key);

// A stack opens in the middle, which usually shows most; a cine opens at its first frame.
const cineStart = (stack, middle) => (stack.at(middle)?.instance.numberOfFrames > 1 ? 0 : middle);

function stepSeries(by) {
  const next = study?.series[study.series.indexOf(series) + by];
  if (next) openSeries(next).catch((error) => wantedSeries === next && notify(error.message));
}

function setWindow(window, options) {
  if (viewer.place && hasWindow(viewer.place.instance)) viewer.setWindow(window, options);
}

function setZoom(value, { isNoted = true } = {}) {
  zoom = value;
  byId("zoom").querySelector(`input[value="${value}"]`).checked = true;
  viewer.setZoom(value);
  if (isNoted) moved();
}

const toggleZoom = () => setZoom(zoom === "1" ? "fit" : "1");

function toggleTags(isShown = byId("tags").hidden, { isNoted = true } = {}) {
  byId("tags").hidden = !isShown;
  byId("show-tags").setAttribute("aria-expanded", String(isShown));
  if (isNoted) moved();
}

// Update controls and address after a change of position, window or zoom.
function moved() {
  const { place, stack, position, window } = viewer;
  if (!place) return;
  const slider = byId("position");
  slider.max = stack.length;
  slider.value = position + 1;
  slider.disabled = stack.length < 2;
  byId("play").disabled = stack.length < 2;
  byId("position-text").textContent = `${number(position + 1)} / ${number(stack.length)}`;
  offerPresets(window, place.instance);
  if (!byId("tags").hidden) showTags(place.instance.id);
  notePlace({
    study: study.id,
    series: series.id,
    instance: place.instance.id,
    frame: place.instance.numberOfFrames > 1 ? place.frameIndex + 1 : "",
    window: window.key,
    zoom: zoom === "1" ? "1" : "",
    tags: byId("tags").hidden ? "" : "1",
  });
}

function offerPresets(window, instance) {
  const known = presets();
  const own = known.some(({ key }) => key === window.key) ? [] : [{ ...window, name: describeWindow(window, instance) }];
  const options = [...known, ...own].map(({ key, name }) => el("option", { value: key, selected: key === window.key }, name));
  byId("preset").replaceChildren(...options);
  byId("preset").disabled = !hasWindow(instance);
}

function describePicture() {
  const { place, window } = viewer;
  if (!place) return;
  const { instance } = place;
  const lines = (...texts) => texts.filter(Boolean).map((text) => el("span", {}, text));
  byId("corner-patient").replaceChildren(...lines(patientName(study), study.patient.patientID, study.studyDate));
  byId("corner-series").replaceChildren(...lines(titleOf(series), series.modality, instance.instanceNumber !== null ? `Instance ${instance.instanceNumber}` : null));
  const isShown = instance.numberOfFrames > 0;
  byId("corner-window").replaceChildren(...lines(isShown ? describeWindow(window, instance) : instance.sopClassName));
  byId("corner-size").replaceChildren(...lines(isShown && viewer.isLossy ? describeLoss(instance) : null, isShown ? `${instance.columns} × ${instance.rows}` : null));
}

function describeStudy({ canUpload, canDownload }) {
  const title = [study.studyDescription || "No description", dateTime(study.studyDate, study.studyTime)].filter(Boolean).join(" · ");
  document.title = `${patientName(study)} · ${title}`;
  byId("study-header").replaceChildren(
    backLink(),
    el("h1", {}, patientName(study), el("span", { class: "detail" }, patientDetails(study))),
    el("p", { class: "what" }, title, el("span", { class: "detail" }, [study.accessionNumber && `Accession ${study.accessionNumber}`, study.institutionName].filter(Boolean).join(" · "))),
    canUpload ? el("button", { type: "button", id: "open-share", onclick: () => openShare(study.id) }, "Share") : "",
    canDownload ? el("button", { type: "button", id: "download", onclick: download }, "Download ZIP") : "",
  );
  const priors = study.priors.length ? [el("h2", {}, "Earlier studies"), ...study.priors.map(priorLink)] : [];
  byId("strip").replaceChildren(...study.series.map(seriesLink), ...priors);
}

const backLink = () => el("a", { class: "back", href: sessionStorage.getItem("worklist") ?? "#" }, "‹ Studies");

function titleOf({ seriesNumber, seriesDescription }) {
  const name = seriesNumber === null ? "Series" : `Series ${seriesNumber}`;
  return seriesDescription ? `${seriesNumber ?? ""} ${seriesDescription}`.trim() : name;
}

function seriesLink(one) {
  const { id } = one;
  const renew = async () => (await graphql(THUMBNAIL, { id })).node?.thumbnail;
  const amount = one.numberOfFrames ? count(one.numberOfFrames, "image") : count(one.numberOfInstances, "object");
  return el(
    "a",
    { href: hashOf({ study: study.id, series: id }), "data-series": id },
    thumbnail(one.thumbnail, renew),
    el("span", { class: "title" }, titleOf(one)),
    el("span", { class: "detail" }, [one.modality, amount].filter(Boolean).join(" · ")),
  );
}

function priorLink({ id, studyDate, studyDescription, modalitiesInStudy }) {
  return el(
    "a",
    { class: "prior", href: hashOf({ study: id }) },
    el("span", { class: "title" }, studyDate),
    el("span", { class: "detail" }, [studyDescription, modalitiesInStudy.join(" ")].filter(Boolean).join(" · ")),
  );
}

async function download() {
  try {
    const { node } = await graphql(ARCHIVE, { id: study.id });
    if (!node) throw new Error("This study was deleted.");
    el("a", { href: node.archiveUrl, download: "" }).click();
  } catch (error) {
    notify(error.message);
  }
}

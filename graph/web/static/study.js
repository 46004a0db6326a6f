// The study page: reads a study, opens its series in viewports, follows what happens to it.
import { connection } from "./api.js";
import { byId, debounce, notify } from "./dom.js";
import { listenToStage } from "./gestures.js";
import { describeStudy, emptyHeader, startHeader } from "./header.js";
import { readInstances } from "./instances.js";
import { Layout } from "./layout.js";
import { forgetMeasurements } from "./measurements.js";
import { notePlace } from "./place.js";
import { fillStrip, markSeries } from "./strip.js";
import { readStudy, withId } from "./studies.js";
import { setScale, showCine, showMove, showState, startToolbar, toggleTags } from "./toolbar.js";
import { parseWindow } from "./windows.js";

const EVENTS = "subscription StudyEvents($uid: String!) { studyEvents(studyInstanceUID: $uid) { id kind } }";

const EVENTS_PAUSE = 500; // Milliseconds: images that arrive one after the other are one change.

let layout;
let wanted = null; // The place that was asked for last: answers to earlier questions are dropped.
let study = null;
let caller = null; // What the caller may do.
let unsubscribe = () => {};

const active = () => layout.active;

export function startStudy() {
  layout = new Layout(adopt);
  layout.addEventListener("active", showAll);
  layout.addEventListener("layout", showAll);
  startHeader();
  startToolbar({ layout, onMove: noteAddress, onLayout: chooseLayout, onStepSeries: stepSeries });
}

// A new viewport: its gestures, and what follows it.
function adopt(viewport) {
  const isInUse = () => viewport === layout?.active;
  listenToStage(viewport, { onMove: () => viewport.cine.stop() });
  viewport.addEventListener("moved", () => isInUse() && study && showMove());
  viewport.addEventListener("played", () => isInUse() && showCine());
}

function showAll() {
  markSeries(active().series?.id, layout.seen.map(({ series }) => series?.id));
  showState();
}

/** Show the place from the address. */
export async function showStudy(asked) {
  const mine = (wanted = asked);
  const isCurrent = () => wanted === mine;
  // At once: whatever comes of the question, nothing of another patient is seen under this address.
  if (study && !isAskedFor(asked)) {
    leaveStudy();
    wanted = mine;
  }
  try {
    const place = await withId(asked);
    if (!isCurrent() || !place) return;
    const isOther = study?.id !== place.study;
    if (isOther) {
      leaveStudy();
      wanted = mine;
      const found = await readStudy(place.study);
      if (!isCurrent()) return; // Another place was chosen meanwhile.
      enter(found);
    }
    // The links of the strip name only the series: the header panel stays as it is.
    if (isOther || place.instance) toggleTags(place.tags === "1", { isNoted: false });
    const series = study.series.find(({ id }) => id === place.series);
    await openSeries(active(), study, series ?? firstSeries(study), place);
    if (isCurrent() && (isOther || place.zoom)) setScale(Number(place.zoom) || null, { isNoted: false });
  } catch (error) {
    if (!isCurrent()) return;
    if (study) notify(error.message);
    else showNothing(error.message);
  }
}

const isAskedFor = ({ study: id, StudyInstanceUID, AccessionNumber }) =>
  id === study.id || StudyInstanceUID === study.studyInstanceUID || AccessionNumber === study.accessionNumber;

const firstSeries = ({ series }) => series.find(({ numberOfFrames }) => numberOfFrames > 0) ?? series[0];

function enter(found) {
  ({ study, caller } = found);
  byId("study-view").classList.remove("empty");
  describe();
  unsubscribe = connection.subscribe(EVENTS, {
    variables: { uid: study.studyInstanceUID },
    onData: ({ studyEvents }) => studyEvents.id === study?.id && changed(studyEvents.kind),
  });
}

function describe() {
  describeStudy(study, caller, { chosen: active, onSeriesGone: leaveSeries });
  fillStrip(study, openPrior);
}

/** Stop all activity of the study page, and free its pictures. */
export function leaveStudy() {
  unsubscribe();
  unsubscribe = () => {};
  wanted = study = null;
  layout.close();
  forgetMeasurements();
  byId("strip").replaceChildren();
  showNothing("");
}

// Without a study there is nothing to use tools on.
function showNothing(sentence) {
  byId("study-view").classList.add("empty");
  emptyHeader();
  if (sentence) active().say(sentence);
}

// The study changed on the server. Images that arrive are added; what is seen stays.
const changed = debounce(async (kind) => {
  const before = study;
  if (!before) return;
  if (kind === "DELETED") {
    leaveStudy();
    return showNothing("This study was deleted.");
  }
  const found = await readStudy(before.id).catch(() => null);
  if (!found || study !== before) return;
  ({ study, caller } = found);
  describe();
  for (const viewport of layout.seen.filter((one) => one.study?.id === study.id)) await renew(viewport);
  showAll();
}, EVENTS_PAUSE);

async function renew(viewport) {
  const { stack, series: before } = viewport;
  const series = study.series.find(({ id }) => id === before.id);
  viewport.study = study;
  if (!series) return viewport.close();
  if (series.numberOfInstances === before.numberOfInstances) return void (viewport.series = series);
  const longer = await readInstances(series.id).catch(() => null);
  if (longer && viewport.stack === stack) viewport.replaceStack(series, longer);
}

async function openSeries(viewport, owner, chosen, { instance, frame, window } = {}) {
  viewport.asked = chosen;
  if (!chosen) return viewport.say("There is no series in this study.");
  const isSame = viewport.series?.id === chosen.id && viewport.stack;
  const stack = isSame ? viewport.stack : await readInstances(chosen.id);
  if (viewport.asked !== chosen || !study) return;
  const found = instance ? stack.find(instance, Math.max(0, Number(frame ?? 1) - 1)) : -1;
  const position = found >= 0 ? found : instance ? 0 : startOf(stack);
  viewport.isPrior = owner.id !== study.id;
  viewport.open(owner, chosen, stack, position, parseWindow(window, chosen.modality));
  if (layout.isLinked) layout.link(true);
  if (layout.hasLines) layout.showLines(true);
  showAll();
}

// A stack opens in the middle, which usually shows most; a cine opens at its first frame.
function startOf(stack) {
  const middle = Math.floor(stack.length / 2);
  return stack.places[middle]?.instance.numberOfFrames > 1 ? 0 : middle;
}

function stepSeries(by) {
  const { study: owner, series } = active();
  const next = owner?.series[owner.series.findIndex(({ id }) => id === series.id) + by];
  if (next) openSeries(active(), owner, next).catch((error) => notify(error.message));
}

// A series was deleted: its viewport shows another one of the study.
function leaveSeries({ id }) {
  const viewport = active();
  if (!study || viewport.series?.id !== id) return;
  const others = study.series.filter((one) => one.id !== id);
  openSeries(viewport, study, firstSeries({ series: others })).catch((error) => notify(error.message));
}

// Other viewports begin with the series that follow.
function chooseLayout(name) {
  layout.setLayout(name);
  const isSeen = ({ id }) => layout.seen.some(({ series }) => series?.id === id);
  const others = study?.series.filter((one) => one.numberOfFrames > 0 && !isSeen(one)) ?? [];
  for (const viewport of layout.seen) {
    const next = viewport.stack ? null : others.shift();
    if (next) openSeries(viewport, study, next).catch((error) => viewport.say(error.message));
  }
}

// An earlier study beside this one: its series that is most like the one that is seen.
async function openPrior(prior) {
  const { study: node } = await readStudy(prior.id);
  if (layout.name === "1x1") layout.setLayout("1x2");
  const { series: current } = layout.seen[0];
  const likeness = (one) =>
    (one.numberOfFrames > 0 ? 1 : 0) +
    (one.modality === current?.modality ? 2 : 0) +
    (one.seriesDescription === current?.seriesDescription ? 4 : 0);
  const best = node.series.reduce((most, one) => (likeness(one) > likeness(most) ? one : most), node.series[0]);
  const show = (series, viewport = active()) =>
    openSeries(viewport, node, series).catch((error) => viewport.say(error.message));
  await show(best, layout.seen[1]);
  return { study: node, show, mark: showAll };
}

// The address names what the viewport in use shows of the study of the page.
function noteAddress() {
  const { place, series, window, study: owner, view } = active();
  if (!place || owner?.id !== study?.id) return;
  notePlace({
    study: study.id,
    series: series.id,
    instance: place.instance.id,
    frame: place.instance.numberOfFrames > 1 ? place.frameIndex + 1 : "",
    window: window.key,
    zoom: view.isFit ? "" : String(Number(view.scale.toPrecision(3))),
    tags: byId("tags").hidden ? "" : "1",
  });
}

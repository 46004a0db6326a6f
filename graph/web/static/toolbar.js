// The tools above the viewports and the position below: they act on the viewport in use and show its state.
import { byId, el } from "./dom.js";
import { number } from "./format.js";
import { listenToKeys } from "./keys.js";
import { closeMenu, keepOneRow } from "./menus.js";
import { showTags } from "./tags.js";
import { describeWindow, hasWindow, parseWindow, presetsFor } from "./windows.js";

const LAYOUTS = ["1x1", "1x2", "2x2"];

let layout;
let noteMove; // Called after each change that belongs into the address.

const active = () => layout.active;

/**
 * @param {object} of
 * @param of.layout         the viewports
 * @param of.onMove         called when position, window, size or header panel of the one in use changed
 * @param of.onLayout       called with the name of another layout
 * @param of.onStepSeries   called with 1 or -1
 */
export function startToolbar({ layout: viewports, onMove, onLayout, onStepSeries }) {
  layout = viewports;
  noteMove = onMove;
  const isTouched = matchMedia("(pointer: coarse)").matches; // Fingers scroll; a mouse has a wheel.
  if (isTouched) chooseTool("scroll");
  const chooseLayout = (name) => {
    onLayout(name);
    showState();
  };
  listenToKeys({
    move(by) {
      active().cine.stop();
      active().step(by);
    },
    chooseTool,
    togglePlay: () => active().cine.toggle(),
    changeSpeed: (by) => (active().cine.speed += by),
    stepSeries: onStepSeries,
    choosePreset: (index) => presets()[index] && active().setWindow(presets()[index]),
    toggleZoom: () => setScale(active().view.isFit ? 1 : null),
    changeView,
    removeMeasurement: () => active().drawing.removeLast(),
    stepLayout: () => chooseLayout(LAYOUTS[(LAYOUTS.indexOf(layout.name) + 1) % LAYOUTS.length]),
    nextViewport: () => layout.seen[(layout.seen.indexOf(active()) + 1) % layout.seen.length].stage.focus(),
    toggleLink,
    toggleLines,
    toggleTags: () => toggleTags(),
  });
  byId("preset").addEventListener("change", (event) => active().setWindow(presetOf(event.target.value)));
  byId("zoom").addEventListener("change", (event) => setScale(event.target.value === "1" ? 1 : null));
  byId("layout").addEventListener("change", (event) => chooseLayout(event.target.value));
  byId("link").addEventListener("click", toggleLink);
  byId("lines").addEventListener("click", toggleLines);
  byId("show-tags").addEventListener("click", () => toggleTags());
  byId("show-keys").addEventListener("click", () => byId("keys").showModal());
  byId("play").addEventListener("click", () => active().cine.toggle());
  byId("speed").addEventListener("input", (event) => (active().cine.speed = event.target.valueAsNumber));
  byId("position").addEventListener("input", (event) => {
    active().cine.stop();
    active().goTo(event.target.valueAsNumber - 1);
  });
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => changeView(button.dataset.view));
  }
  byId("tools-menu").addEventListener("click", (event) => event.target.closest("button, label:has(input)") && setTimeout(closeMenu, 0, event.target));
  keepOneRow(byId("tools"));
}

const presets = () => presetsFor(active().series?.modality, active().place?.instance);
const presetOf = (key) => presets().find((preset) => preset.key === key) ?? parseWindow(key);

function chooseTool(name) {
  document.querySelector(`input[name="tool"][value="${name}"]`).checked = true;
}

/** Show the picture in use in a size: CSS pixels per pixel, null as large as fits. */
export function setScale(scale, { isNoted = true } = {}) {
  active().view.setScale(scale);
  active().lay();
  showMove({ isNoted });
}

function changeView(change) {
  const viewport = active();
  const { view } = viewport;
  if (change === "right") view.rotate(90);
  else if (change === "left") view.rotate(-90);
  else if (change === "x" || change === "y") view.mirror(change);
  else if (change === "invert") viewport.setInverted(!viewport.isInverted);
  else {
    view.reset();
    viewport.setInverted(false);
    viewport.setWindow(parseWindow());
  }
  viewport.lay();
  showMove();
}

async function toggleLink() {
  if (layout.name === "1x1") return;
  await layout.link(!layout.isLinked);
  showState();
}

async function toggleLines() {
  if (layout.name === "1x1") return;
  await layout.showLines(!layout.hasLines);
  showState();
}

/** Show or hide the panel of the DICOM header. */
export function toggleTags(isShown = byId("tags").hidden, { isNoted = true } = {}) {
  byId("tags").hidden = !isShown;
  byId("show-tags").setAttribute("aria-expanded", String(isShown));
  showMove({ isNoted });
}

/** Show position, window and size of the viewport in use. */
export function showMove({ isNoted = true } = {}) {
  const { place, position, stack, window } = active();
  if (!place) return;
  const slider = byId("position");
  slider.max = stack.length;
  slider.value = position + 1;
  slider.disabled = byId("play").disabled = stack.length < 2;
  byId("position-text").textContent = `${number(position + 1)} / ${number(stack.length)}`;
  offerPresets(window, place.instance);
  showZoom();
  if (!byId("tags").hidden) showTags(place.instance.id);
  if (isNoted) noteMove();
}

/** Show everything that belongs to the viewport in use. */
export function showState() {
  const isSeveral = layout.name !== "1x1";
  byId("layout").querySelector(`input[value="${layout.name}"]`).checked = true;
  for (const [id, isOn] of [["link", layout.isLinked], ["lines", layout.hasLines]]) {
    byId(id).disabled = !isSeveral;
    byId(id).setAttribute("aria-pressed", String(isSeveral && isOn));
  }
  for (const viewport of layout.seen) viewport.corners.write();
  showCine();
  showMove();
}

/** Show whether the viewport in use plays, and how fast. */
export function showCine() {
  const { cine } = active();
  byId("play").setAttribute("aria-pressed", String(cine.isPlaying));
  byId("play").setAttribute("aria-label", cine.isPlaying ? "Stop" : "Play");
  byId("speed").valueAsNumber = cine.speed;
  byId("speed-text").textContent = `${cine.speed} /s`;
}

function showZoom() {
  const { view, isInverted } = active();
  for (const input of byId("zoom").querySelectorAll("input")) {
    input.checked = input.value === "1" ? view.scale === 1 && !view.isFit : view.isFit;
  }
  byId("invert").setAttribute("aria-pressed", String(Boolean(isInverted)));
}

function offerPresets(window, instance) {
  const known = presets();
  const own = known.some(({ key }) => key === window.key) ? [] : [{ ...window, name: describeWindow(window, instance) }];
  const all = [...known, ...own];
  const select = byId("preset");
  const offered = all.map(({ key, name }) => `${key} ${name}`).join("\n");
  if (select.dataset.offered !== offered) {
    select.dataset.offered = offered;
    select.replaceChildren(...all.map(({ key, name }) => el("option", { value: key }, name)));
  }
  select.value = window.key;
  select.disabled = !hasWindow(instance);
}

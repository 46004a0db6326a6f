// Keyboard shortcuts of the viewer.
import { byId } from "./dom.js";

/** Handle keys while the study page is open and no field, dialog or control uses the key. */
export function listenToKeys({ viewer, cine, setWindow, presets, toggleZoom, toggleTags, stepSeries }) {
  const move = (by) => () => {
    cine.stop();
    viewer.step(by);
  };
  const actions = {
    ArrowUp: move(-1),
    ArrowLeft: move(-1),
    ArrowDown: move(1),
    ArrowRight: move(1),
    PageUp: move(-10),
    PageDown: move(10),
    Home: move(-Infinity),
    End: move(Infinity),
    " ": () => cine.toggle(),
    "+": () => cine.changeSpeed(1),
    "=": () => cine.changeSpeed(1),
    "-": () => cine.changeSpeed(-1),
    "[": () => stepSeries(-1),
    "]": () => stepSeries(1),
    f: toggleZoom,
    t: () => toggleTags(),
    "?": () => byId("keys").showModal(),
    Escape: () => document.querySelector(".back")?.click(),
  };
  document.addEventListener("keydown", (event) => {
    const preset = presets()[Number(event.key) - 1];
    const action = actions[event.key] ?? (preset && (() => setWindow(preset)));
    if (!action || !isOurs(event)) return;
    event.preventDefault();
    action();
  });
}

function isOurs(event) {
  if (byId("study-view").hidden || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return false;
  const { target } = event;
  if (target.closest("dialog")) return false;
  const isSlider = target.matches('input[type="range"], input[type="radio"], select');
  const movesIt = /^(Arrow|Page|Home|End)/.test(event.key);
  if (isSlider) return !movesIt && event.key !== " ";
  if (target.matches("input, textarea")) return false;
  if (target.closest(".scroller") && movesIt) return false;
  return !(event.key === " " && target.matches("button, a"));
}

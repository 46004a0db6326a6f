// Keyboard shortcuts of the viewer, and the sheet that lists them: both from one table.
import { byId, el } from "./dom.js";

/** Handle keys while the study page is open and no field, dialog or control uses the key. */
export function listenToKeys(viewer) {
  const move = (by) => () => viewer.move(by);
  const tool = (name) => () => viewer.chooseTool(name);
  const table = [
    ["Images", [
      [["ArrowUp", "ArrowLeft"], "previous image", move(-1)],
      [["ArrowDown", "ArrowRight"], "next image", move(1)],
      [["PageUp"], "ten images back", move(-10)],
      [["PageDown"], "ten images on", move(10)],
      [["Home"], "first image", move(-Infinity)],
      [["End"], "last image", move(Infinity)],
      [[" "], "play, stop", () => viewer.togglePlay()],
      [["-"], "slower", () => viewer.changeSpeed(-1)],
      [["+", "="], "faster", () => viewer.changeSpeed(1)],
      [["["], "previous series", () => viewer.stepSeries(-1)],
      [["]"], "next series", () => viewer.stepSeries(1)],
    ]],
    ["Picture", [
      [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "window presets", (key) => viewer.choosePreset(Number(key) - 1)],
      [["f"], "fit, 1:1", () => viewer.toggleZoom()],
      [["r"], "turn to the right", () => viewer.changeView("right")],
      [["R"], "turn to the left", () => viewer.changeView("left")],
      [["h"], "mirror left and right", () => viewer.changeView("x")],
      [["v"], "mirror top and bottom", () => viewer.changeView("y")],
      [["i"], "invert", () => viewer.changeView("invert")],
      [["0"], "as it was", () => viewer.changeView("reset")],
    ]],
    ["Tools", [
      [["w"], "window", tool("window")],
      [["s"], "scroll", tool("scroll")],
      [["m"], "move", tool("pan")],
      [["z"], "zoom", tool("zoom")],
      [["l"], "length", tool("length")],
      [["a"], "angle", tool("angle")],
      [["e"], "ellipse", tool("ellipse")],
      [["Delete", "Backspace"], "remove the last measurement", () => viewer.removeMeasurement()],
    ]],
    ["Page", [
      [["g"], "1, 2, 4 viewports", () => viewer.stepLayout()],
      [["n"], "next viewport", () => viewer.nextViewport()],
      [["k"], "scroll together", () => viewer.toggleLink()],
      [["x"], "reference lines", () => viewer.toggleLines()],
      [["t"], "DICOM header", () => viewer.toggleTags()],
      [["?"], "this sheet", () => byId("keys").showModal()],
      [["Escape"], "back to the list", () => document.querySelector(".back")?.click()],
    ]],
  ];
  const actions = new Map(table.flatMap(([, lines]) => lines.flatMap(([keys, , action]) => keys.map((key) => [key, action]))));
  document.addEventListener("keydown", (event) => {
    const action = actions.get(event.key);
    if (!action || !isOurs(event)) return;
    event.preventDefault();
    action(event.key);
  });
  byId("keys-table").replaceChildren(...table.map(([title, lines]) => section(title, lines)), mouse());
}

const NAMES = { ArrowUp: "↑", ArrowLeft: "←", ArrowDown: "↓", ArrowRight: "→", PageUp: "Page ↑", PageDown: "Page ↓", " ": "Space", "-": "−", "=": null, R: "Shift R", Escape: "Esc", Backspace: null };

function section(title, lines) {
  const rows = lines.flatMap(([keys, text]) => {
    const shown = keys.length > 4 ? [keys[0], keys.at(-1)] : keys;
    const names = shown.map((key) => (key in NAMES ? NAMES[key] : key.length === 1 ? key.toUpperCase() : key)).filter(Boolean);
    const caps = names.flatMap((name, i) => [i ? (keys.length > 4 ? " … " : " ") : "", el("kbd", {}, name)]);
    return [el("dt", {}, ...caps), el("dd", {}, text)];
  });
  return el("section", {}, el("h3", {}, title), el("dl", {}, ...rows));
}

function mouse() {
  const lines = [
    ["wheel", "through the stack"],
    ["Ctrl wheel, pinch", "zoom"],
    ["right button", "zoom"],
    ["middle button, Shift", "move"],
    ["double click", "fit, 1:1"],
  ];
  return el("section", {}, el("h3", {}, "Mouse and touch"), el("dl", {}, ...lines.flatMap(([how, what]) => [el("dt", {}, how), el("dd", {}, what)])));
}

function isOurs(event) {
  if (byId("study-view").hidden || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return false;
  const { target } = event;
  if (document.querySelector("dialog[open]")) return false; // The focus may be outside, on nothing.
  if (event.key === "Escape" && document.querySelector("[popover]:popover-open")) return false;
  const movesIt = /^(Arrow|Page|Home|End)/.test(event.key);
  if (target.matches('input[type="range"], input[type="radio"]')) return !movesIt && event.key !== " ";
  // Letters choose an option by its name.
  if (target.matches("select")) return !movesIt && !/^[a-z ]$/i.test(event.key);
  if (target.matches("input, textarea")) return false;
  if (target.closest(".scroller, .lines") && movesIt) return false;
  return !(event.key === " " && target.matches("button, a"));
}

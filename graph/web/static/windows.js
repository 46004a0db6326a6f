// Windows (PS3.3 C.11.2): the presets, their keys in the address, and changes by dragging.
import { decimal } from "./format.js";

const DEFAULT = { key: "", name: "Default" };
const FULL = { key: "full", name: "Full range", full: true };

// In Hounsfield units; values that radiology departments commonly use.
const CT_PRESETS = [
  ["Lung", -600, 1500],
  ["Bone", 400, 1800],
  ["Brain", 40, 80],
  ["Soft tissue", 40, 400],
];

const PIXELS_PER_WIDTH = 320; // Dragging so far doubles the width or moves the centre by one width.

export function windowOf(center, width, name = "Own") {
  return { key: `${decimal(center)},${decimal(width)}`, name, center, width };
}

/** The presets for a modality, only CT has Hounsfield units, and the windows of the file by name. */
export function presetsFor(modality, instance) {
  const ct = modality === "CT" ? CT_PRESETS.map(([name, center, width]) => windowOf(center, width, name)) : [];
  return [DEFAULT, FULL, ...ct, ...windowsOfFile(instance)];
}

// The only window of a file is the default one.
function windowsOfFile(instance) {
  const windows = instance?.windows ?? [];
  if (windows.length < 2) return [];
  const named = windows.map(({ center, width, explanation }, i) => windowOf(center, width, `File: ${explanation || i + 1}`));
  return named.filter(({ key }, i) => named.findIndex((other) => other.key === key) === i);
}

/** The window for a key in the address: "", "full" or "centre,width". */
export function parseWindow(key = "", modality = "") {
  const preset = presetsFor(modality).find((window) => window.key === key);
  if (preset) return preset;
  const [center, width] = key.split(",").map(Number);
  return Number.isFinite(center) && width > 0 ? windowOf(center, width) : DEFAULT;
}

/** The window as the rendering of a picture. */
export function renderingOf({ center, width, full }) {
  if (full) return { fullRange: true };
  return width ? { center, width } : {};
}

/** Whether the instance can be windowed; colour images can not. */
export const hasWindow = (instance) => /^MONOCHROME/.test(instance.photometricInterpretation ?? "");

/** The window at which dragging starts when the picture has the window of its file. */
export function startWindow(window, instance) {
  if (window.width) return window;
  if (instance.windowWidth > 0) return windowOf(instance.windowCenter, instance.windowWidth);
  // A file without a window: the range of 8 bits, or of the 12 bits that most devices use.
  return instance.bitsAllocated <= 8 ? windowOf(128, 256) : windowOf(2048, 4096);
}

/** The window after dragging from `start`: right widens it, up lowers the centre (brighter). */
export function dragged(start, right, down) {
  const pixel = start.width / PIXELS_PER_WIDTH;
  const isWide = start.width > 20;
  const tidy = (value) => (isWide ? Math.round(value) : Number(value.toPrecision(4)));
  const width = Math.max(isWide ? 1 : start.width / 100, tidy(start.width + right * pixel));
  return windowOf(tidy(start.center + down * pixel), width);
}

/** The displayed window, as "W 400 C 40". */
export function describeWindow(window, instance) {
  if (!hasWindow(instance)) return "colour";
  if (window.full) return "full range";
  const { center, width } = window.width ? window : { center: instance.windowCenter, width: instance.windowWidth };
  return width ? `W ${decimal(width)} C ${decimal(center)}` : "full range";
}

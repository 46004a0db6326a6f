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

/** The presets for a modality; only CT has Hounsfield units. */
export function presetsFor(modality) {
  const ct = modality === "CT" ? CT_PRESETS.map(([name, center, width]) => windowOf(center, width, name)) : [];
  return [DEFAULT, FULL, ...ct];
}

/** The window for a key in the address: "", "full" or "centre,width". */
export function parseWindow(key = "", modality = "") {
  const preset = presetsFor(modality).find((window) => window.key === key);
  if (preset) return preset;
  const [center, width] = key.split(",").map(Number);
  return Number.isFinite(center) && width >= 1 ? windowOf(center, width) : DEFAULT;
}

/** Whether the instance can be windowed; colour images can not. */
export const hasWindow = (instance) => /^MONOCHROME/.test(instance.photometricInterpretation ?? "");

/** The window at which dragging starts when the picture has the window of its file. */
export function startWindow(window, instance) {
  if (window.width) return window;
  if (instance.windowWidth >= 1) return windowOf(instance.windowCenter, instance.windowWidth);
  // A file without a window: the range of 8 bits, or of the 12 bits that most devices use.
  return instance.bitsAllocated <= 8 ? windowOf(128, 256) : windowOf(2048, 4096);
}

/** The window after dragging from `start`: right widens it, up lowers the centre (brighter). */
export function dragged(start, right, down) {
  const pixel = start.width / PIXELS_PER_WIDTH;
  const tidy = (value) => (start.width > 20 ? Math.round(value) : Number(value.toFixed(2)));
  const width = Math.max(1, tidy(start.width + right * pixel));
  return windowOf(tidy(start.center + down * pixel), width);
}

/** The displayed window, as "W 400 C 40". */
export function describeWindow(window, instance) {
  if (!hasWindow(instance)) return "colour";
  if (window.full) return "full range";
  const { center, width } = window.width ? window : { center: instance.windowCenter, width: instance.windowWidth };
  return width ? `W ${decimal(width)} C ${decimal(center)}` : "full range";
}

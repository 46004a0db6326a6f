// Windows (PS3.3 C.11.2): the presets, their names in the address, and what dragging does to them.
import { decimal } from "./format.js";

const DEFAULT = { key: "", name: "Default" };
const FULL = { key: "full", name: "Full range", full: true };

// In Hounsfield units, as radiology departments commonly set them.
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

/** The presets that make sense for a modality; Hounsfield units exist in CT alone. */
export function presetsFor(modality) {
  const ct = modality === "CT" ? CT_PRESETS.map(([name, center, width]) => windowOf(center, width, name)) : [];
  return [DEFAULT, FULL, ...ct];
}

/** The window of its key in the address: "", "full" or "centre,width". */
export function parseWindow(key = "", modality = "") {
  const preset = presetsFor(modality).find((window) => window.key === key);
  if (preset) return preset;
  const [center, width] = key.split(",").map(Number);
  return Number.isFinite(center) && width >= 1 ? windowOf(center, width) : DEFAULT;
}

/** Whether a window changes this instance's picture: colours have none. */
export const hasWindow = (instance) => /^MONOCHROME/.test(instance.photometricInterpretation ?? "");

/** Where dragging starts when the picture is shown as the file says. */
export function startWindow(window, instance) {
  if (window.width) return window;
  if (instance.windowWidth >= 1) return windowOf(instance.windowCenter, instance.windowWidth);
  // Without a window in the file: the whole range of 8 bits, or the 12 that most devices fill.
  return instance.bitsAllocated <= 8 ? windowOf(128, 256) : windowOf(2048, 4096);
}

/** The window after dragging from `start`: right is wider, up is a lower centre (brighter). */
export function dragged(start, right, down) {
  const pixel = start.width / PIXELS_PER_WIDTH;
  const tidy = (value) => (start.width > 20 ? Math.round(value) : Number(value.toFixed(2)));
  const width = Math.max(1, tidy(start.width + right * pixel));
  return windowOf(tidy(start.center + down * pixel), width);
}

/** "W 400 C 40" of what is on the screen. */
export function describeWindow(window, instance) {
  if (!hasWindow(instance)) return "colour";
  if (window.full) return "full range";
  const { center, width } = window.width ? window : { center: instance.windowCenter, width: instance.windowWidth };
  return width ? `W ${decimal(width)} C ${decimal(center)}` : "full range";
}

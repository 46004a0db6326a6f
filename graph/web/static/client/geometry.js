// Where pictures lie in the patient (PS3.3 C.7.6.2), and what a distance on them means.
//
// Positions on a picture are in pixels: x along a row, y down a column, 0 and 0 at the upper left corner
// of the first pixel, so that its centre is at 0.5. Positions in the patient are in mm: x to the left,
// y to the back, z to the head.

/** @typedef {[number, number]} Point @typedef {number[]} Vector */
/**
 * @typedef {object} Plane The plane of a frame.
 * @property {Vector} position ImagePositionPatient: the centre of the first pixel.
 * @property {Vector} orientation ImageOrientationPatient: directions of the rows, then of the columns.
 * @property {Point} spacing PixelSpacing: distance of rows, then of columns.
 * @property {number} columns
 * @property {number} rows
 */

const PARALLEL = 0.01; // Sine of the angle below which two planes count as parallel, half a degree.
const OBLIQUE = 0.2; // Share of a direction that is worth a second letter, about 12 degrees.

export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

/** The normal of a plane. @param {Vector} orientation @returns {Vector} */
export const normalOf = (orientation) => cross(orientation.slice(0, 3), orientation.slice(3, 6));

/**
 * The letters of a direction in the patient, the strongest first: "L", "PI". Empty without a direction.
 * @param {Vector} direction
 */
export function lettersOf(direction) {
  const pairs = [["R", "L"], ["A", "P"], ["F", "H"]];
  return direction
    .map((share, axis) => ({ share: Math.abs(share), letter: pairs[axis][share > 0 ? 1 : 0] }))
    .filter(({ share }) => share > OBLIQUE)
    .sort((one, other) => other.share - one.share)
    .map(({ letter }) => letter)
    .join("");
}

const OPPOSITE = { L: "R", R: "L", A: "P", P: "A", F: "H", H: "F" };

/** The letters of the other direction. @param {string} letters */
export const oppositeOf = (letters) => [...letters].map((letter) => OPPOSITE[letter] ?? letter).join("");

/**
 * Where a plane cuts a picture, as a line on it; null where they are parallel or do not meet.
 * @param {Plane} picture
 * @param {Plane} other
 * @returns {[Point, Point] | null}
 */
export function referenceLine(picture, other) {
  const normal = normalOf(other.orientation);
  const along = dot(picture.orientation.slice(0, 3), normal) * picture.spacing[1];
  const down = dot(picture.orientation.slice(3, 6), normal) * picture.spacing[0];
  if (Math.hypot(along / picture.spacing[1], down / picture.spacing[0]) < PARALLEL) return null;
  const offset = dot(picture.position.map((value, axis) => value - other.position[axis]), normal);
  // offset + along (x - 0.5) + down (y - 0.5) = 0, cut at the edges of the picture.
  const yAt = (x) => 0.5 - (offset + along * (x - 0.5)) / down;
  const xAt = (y) => 0.5 - (offset + down * (y - 0.5)) / along;
  const { columns, rows } = picture;
  const inside = [[0, yAt(0)], [columns, yAt(columns)], [xAt(0), 0], [xAt(rows), rows]].filter(
    ([x, y]) => x >= -1e-6 && x <= columns + 1e-6 && y >= -1e-6 && y <= rows + 1e-6,
  );
  const [first] = inside;
  const last = inside.reduce((best, point) => (first && far(first, point) > far(first, best) ? point : best), first);
  return first && far(first, last) > 1 ? [/** @type {Point} */ (first), /** @type {Point} */ (last)] : null;
}

const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** Whether two planes are parallel, so that stacks can scroll together. @param {Vector} a @param {Vector} b */
export function areParallel(a, b) {
  const turned = cross(normalOf(a), normalOf(b));
  return Math.hypot(turned[0], turned[1], turned[2]) < 0.2; // About 12 degrees: follow-ups lie a little differently.
}

/**
 * What one pixel measures; null where nothing is known.
 * @param {{pixelSpacing?: number[] | null, imagerPixelSpacing?: number[] | null, sopClassUID?: string | null}} instance
 * @returns {{spacing: Point, isAtDetector: boolean} | null} mm between rows, then between columns. At the
 *   detector of an X-ray device the patient is smaller than the picture.
 */
export function pixelSize({ pixelSpacing, imagerPixelSpacing }) {
  const given = (pair) => (pair?.length === 2 && pair[0] > 0 && pair[1] > 0 ? /** @type {Point} */ (pair) : null);
  const [patient, detector] = [given(pixelSpacing), given(imagerPixelSpacing)];
  if (patient) return { spacing: patient, isAtDetector: patient[0] === detector?.[0] && patient[1] === detector[1] };
  return detector && { spacing: detector, isAtDetector: true };
}

/** Distance of two points on a picture. @param {Point} a @param {Point} b @param {Point} spacing */
export const distance = (a, b, spacing) => Math.hypot((a[0] - b[0]) * spacing[1], (a[1] - b[1]) * spacing[0]);

/** The angle at `corner`, in degrees. @param {Point} a @param {Point} corner @param {Point} b @param {Point} spacing */
export function angle(a, corner, b, spacing) {
  const direction = ([x, y]) => Math.atan2((y - corner[1]) * spacing[0], (x - corner[0]) * spacing[1]);
  const turned = Math.abs(direction(a) - direction(b)) % (2 * Math.PI);
  return ((turned > Math.PI ? 2 * Math.PI - turned : turned) * 180) / Math.PI;
}

/** Area of the ellipse in the box of two corners. @param {Point} a @param {Point} b @param {Point} spacing */
export const ellipseArea = (a, b, spacing) => (Math.PI / 4) * Math.abs(a[0] - b[0]) * spacing[1] * Math.abs(a[1] - b[1]) * spacing[0];

/**
 * How tall a pixel is for its width (PS3.3 C.7.6.3.1.7, C.10.7.1.1): 1 of square pixels and where
 * the file does not tell.
 * @param {{pixelAspectRatio?: number[] | null, pixelSpacing?: number[] | null, imagerPixelSpacing?: number[] | null}} instance
 */
export function pixelShape({ pixelAspectRatio, pixelSpacing, imagerPixelSpacing }) {
  for (const pair of [pixelSpacing, imagerPixelSpacing, pixelAspectRatio]) {
    const [vertical, horizontal] = pair ?? [];
    if (vertical > 0 && horizontal > 0) return vertical / horizontal;
  }
  return 1;
}

// Length, angle and ellipse on a picture. They are kept while the study is open and stored nowhere.
import { graphql } from "./api.js";
import { angle, distance, ellipseArea, pixelSize } from "./client/geometry.js";
import { svg } from "./dom.js";
import { decimal } from "./format.js";

export const KINDS = new Set(["length", "angle", "ellipse"]);
const POINTS = { length: 2, angle: 3, ellipse: 2 };
const SMALLEST = 4; // CSS pixels: a shorter drag is a click.
const ALL = new Map(); // Instance/frame -> shapes.

const VALUES = `query Values($refs: [FrameRef!]!, $ellipse: EllipseInput!) {
  frames(refs: $refs) { statistics(ellipse: $ellipse) { mean standardDeviation minimum maximum numberOfPixels unit } }
}`;

/** Forget all of them: another study is opened. */
export const forgetMeasurements = () => ALL.clear();

/** What is drawn on the picture of a viewport. */
export class Drawing {
  #viewport;
  #unfinished = null; // An angle whose second leg is missing.
  element = svg("g", { class: "shapes" });

  constructor(viewport) {
    this.#viewport = viewport;
  }

  get #place() {
    return this.#viewport.shown?.place;
  }

  get #shapes() {
    const place = this.#place;
    return (place && ALL.get(`${place.instance.id}/${place.frameIndex}`)) ?? [];
  }

  /** Whether anything is drawn on the picture that is seen. */
  get hasAny() {
    return this.#shapes.length > 0;
  }

  /** Whether an angle on the picture waits for its second leg. */
  get isUnfinished() {
    return this.#unfinished !== null && this.#shapes.includes(this.#unfinished);
  }

  /** Begin a shape, or continue an angle. @returns the moves of this drag: `move`, `end` */
  begin(kind, point) {
    const place = this.#place;
    if (!place) return null;
    if (this.isUnfinished && kind === "angle") return this.#finishAngle(point);
    if (this.isUnfinished) this.#remove(this.#unfinished);
    const { view } = this.#viewport;
    const at = view.toPicture(point);
    const shape = { kind, points: [at, at], place };
    this.#add(shape);
    return {
      move: (to) => this.#set(shape, 1, to),
      end: (to) => {
        if (Math.hypot(to[0] - point[0], to[1] - point[1]) < SMALLEST) return this.#remove(shape);
        if (kind === "angle") this.#unfinished = shape;
        else this.#measure(shape);
      },
    };
  }

  /** The pointer moves without a button: the second leg of an angle follows. */
  hover(point) {
    if (this.isUnfinished) this.#set(this.#unfinished, 2, point);
  }

  #finishAngle(point) {
    const shape = this.#unfinished;
    this.#set(shape, 2, point);
    this.#unfinished = null;
    return { move: (to) => this.#set(shape, 2, to), end: () => this.draw() };
  }

  /** Move a point of a shape. @param handle the element that was taken hold of */
  beginHandle(handle) {
    const shape = this.#shapes[Number(handle.dataset.shape)];
    if (!shape) return null;
    const index = Number(handle.dataset.point);
    return { move: (to) => this.#set(shape, index, to), end: () => this.#measure(shape) };
  }

  /** Remove the newest shape, or the one that a button belongs to. */
  removeLast(button = null) {
    const shapes = this.#shapes;
    const shape = button ? shapes[Number(button.dataset.remove)] : shapes.at(-1);
    if (shape) this.#remove(shape);
  }

  #add(shape) {
    const key = `${shape.place.instance.id}/${shape.place.frameIndex}`;
    ALL.set(key, [...(ALL.get(key) ?? []), shape]);
    this.draw();
    this.#viewport.corners.turn();
  }

  #remove(shape) {
    const key = `${shape.place.instance.id}/${shape.place.frameIndex}`;
    ALL.set(key, (ALL.get(key) ?? []).filter((one) => one !== shape));
    if (this.#unfinished === shape) this.#unfinished = null;
    this.draw();
    this.#viewport.corners.turn();
  }

  #set(shape, index, point) {
    shape.points[index] = this.#viewport.view.toPicture(point);
    if (shape.kind === "ellipse") shape.values = null;
    this.draw();
  }

  // The values are those of the file behind the modality LUT, read by the server; not grey levels.
  async #measure(shape) {
    if (shape.kind !== "ellipse") return this.draw();
    const { instance, frameIndex } = shape.place;
    const asked = (shape.asked = {});
    const [[x1, y1], [x2, y2]] = shape.points;
    const ellipse = { column: (x1 + x2) / 2, row: (y1 + y2) / 2, radiusColumns: Math.abs(x1 - x2) / 2, radiusRows: Math.abs(y1 - y2) / 2 };
    shape.values = "…";
    this.draw();
    let values;
    try {
      const { frames } = await graphql(VALUES, { refs: [{ instanceId: instance.id, index: frameIndex }], ellipse });
      values = describeValues(frames[0]?.statistics);
    } catch (error) {
      values = error.message;
    }
    if (shape.asked !== asked) return;
    shape.values = values;
    this.draw();
  }

  /** Draw the shapes of the picture that is seen. */
  draw() {
    const { view } = this.#viewport;
    const drawn = this.#shapes.flatMap((shape, i) => {
      const points = shape.points.map((point) => view.toStage(point));
      const handles = points.map(([cx, cy], k) => [
        svg("circle", { class: "knob", cx, cy, r: 4 }),
        svg("circle", { class: "handle", cx, cy, r: 14, "data-shape": i, "data-point": k }),
      ]);
      return [outlineOf(shape.kind, points), ...handles.flat(), labelOf(shape, points, i)];
    });
    this.element.replaceChildren(...drawn);
  }
}

function outlineOf(kind, points) {
  if (kind !== "ellipse") return svg("polyline", { points: points.map((point) => point.join(",")).join(" ") });
  const [[x1, y1], [x2, y2]] = points;
  return svg("ellipse", { cx: (x1 + x2) / 2, cy: (y1 + y2) / 2, rx: Math.abs(x1 - x2) / 2, ry: Math.abs(y1 - y2) / 2 });
}

function labelOf(shape, points, index) {
  const [x, y] = points.reduce((best, point) => (point[0] > best[0] ? point : best));
  const lines = describe(shape).map((line, i) => svg("tspan", { x: x + 30, dy: i ? "1.3em" : "0" }, line));
  return svg(
    "g",
    {},
    svg("text", { x: x + 30, y: y + 5 }, ...lines),
    svg("g", { class: "remove", "data-remove": index }, svg("circle", { cx: x + 18, cy: y, r: 9 }), svg("path", { d: `M${x + 15} ${y - 3}l6 6m0 -6l-6 6` })),
  );
}

function describe({ kind, points, place, values }) {
  const size = pixelSize(place.instance);
  const spacing = size?.spacing ?? [1, 1];
  const unit = size ? "mm" : "px";
  const detector = size?.isAtDetector ? " at the detector" : "";
  if (kind === "angle") return points.length < POINTS.angle ? [] : [`${decimal(angle(points[0], points[1], points[2], spacing))}°`];
  if (kind === "length") return [`${tenth(distance(points[0], points[1], spacing))} ${unit}${detector}`];
  return [values, `Area ${tenth(ellipseArea(points[0], points[1], spacing))} ${unit}²${detector}`].filter(Boolean);
}

const tenth = (value) => value.toFixed(value < 10 ? 2 : 1);

function describeValues(values) {
  if (!values) return "No values: this is a colour picture.";
  const unit = values.unit ? ` ${values.unit}` : "";
  return `Mean ${decimal(values.mean)}${unit} ± ${decimal(values.standardDeviation)} (${decimal(values.minimum)} to ${decimal(values.maximum)})`;
}

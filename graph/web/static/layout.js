// Viewports side by side: which one is in use, scrolling together, and reference lines.
import { areParallel, dot, normalOf, referenceLine } from "./client/geometry.js";
import { byId, svg } from "./dom.js";
import { Viewport } from "./viewport.js";

const CELLS = { "1x1": 1, "1x2": 2, "2x2": 4 };

/** Events: "active" (another viewport is in use), "layout". */
export class Layout extends EventTarget {
  viewports = [new Viewport("1")];
  active = this.viewports[0];
  name = "1x1";
  isLinked = false;
  hasLines = false;
  #onNew;
  #following = false; // A viewport moves because another one did.
  #offsets = new Map(); // Viewport -> mm along its normal from the others, taken when they were linked.

  /** @param onNew called with each viewport that is made */
  constructor(onNew) {
    super();
    this.#onNew = onNew;
    this.#adopt(this.active);
    this.#arrange();
  }

  /** Viewports that are seen. */
  get seen() {
    return this.viewports.slice(0, CELLS[this.name]);
  }

  setLayout(name) {
    this.name = name;
    while (this.viewports.length < CELLS[name]) {
      const viewport = new Viewport(String(this.viewports.length + 1));
      this.viewports.push(viewport);
      this.#adopt(viewport);
    }
    for (const viewport of this.viewports.slice(CELLS[name])) viewport.close();
    if (!this.seen.includes(this.active)) this.#exchange();
    this.#arrange();
    this.link(this.isLinked);
    this.dispatchEvent(new Event("layout"));
  }

  activate(viewport) {
    if (viewport === this.active) return;
    this.active.cine.stop();
    this.active = viewport;
    this.#mark();
    this.drawLines();
    this.dispatchEvent(new Event("active"));
  }

  close() {
    for (const viewport of this.viewports) viewport.close();
    this.setLayout("1x1");
  }

  /** Scroll parallel stacks together, from the slices that are seen now where they share no coordinates. */
  async link(isLinked) {
    this.isLinked = isLinked;
    this.#offsets.clear();
    if (!isLinked) return;
    await Promise.all(this.seen.map(({ stack }) => stack?.readPlanes().catch(() => null)));
    const from = planeOf(this.active);
    for (const viewport of this.seen) {
      const plane = planeOf(viewport);
      const isShared = plane && from && plane.frameOfReferenceUID && plane.frameOfReferenceUID === from.frameOfReferenceUID;
      if (plane && from && !isShared) this.#offsets.set(viewport, along(plane, plane) - along(from, plane));
    }
    this.follow(this.active);
  }

  async showLines(hasLines) {
    this.hasLines = hasLines;
    if (hasLines) await Promise.all(this.seen.map(({ stack }) => stack?.readPlanes().catch(() => null)));
    this.drawLines();
  }

  /** Take the other viewports to the slice of one. */
  follow(leader) {
    this.drawLines();
    if (!this.isLinked || this.#following || this.seen.length < 2) return;
    const from = planeOf(leader);
    if (!from) return;
    this.#following = true;
    for (const viewport of this.seen) {
      if (viewport === leader) continue;
      const target = nearest(viewport, from, (this.#offsets.get(viewport) ?? 0) - (this.#offsets.get(leader) ?? 0));
      if (target !== null) viewport.goTo(target);
    }
    this.#following = false;
  }

  /** Draw where the slice in use cuts the others. */
  drawLines() {
    const active = planeOf(this.active);
    for (const viewport of this.viewports) {
      // Until there is a picture, nothing tells where on the screen it lies.
      const hasLine = this.hasLines && viewport !== this.active && viewport.shown;
      const plane = hasLine ? planeOf(viewport) : null;
      const isShared = plane && active && plane.frameOfReferenceUID && plane.frameOfReferenceUID === active.frameOfReferenceUID;
      const line = isShared ? referenceLine(plane, active) : null;
      const [[x1, y1], [x2, y2]] = line ? line.map((point) => viewport.view.toStage(point)) : [[], []];
      viewport.lines.replaceChildren(...(line ? [svg("line", { x1, y1, x2, y2 })] : []));
    }
  }

  #adopt(viewport) {
    viewport.element.addEventListener("pointerdown", () => this.activate(viewport), { capture: true });
    viewport.element.addEventListener("focusin", () => this.activate(viewport));
    viewport.addEventListener("moved", () => viewport === this.active && this.follow(viewport));
    viewport.addEventListener("laid", () => this.hasLines && this.drawLines());
    this.#onNew(viewport);
  }

  // The viewport in use comes first when fewer are seen.
  #exchange() {
    const index = this.viewports.indexOf(this.active);
    [this.viewports[0], this.viewports[index]] = [this.viewports[index], this.viewports[0]];
  }

  #arrange() {
    byId("screen").dataset.layout = this.name;
    byId("screen").replaceChildren(...this.seen.map(({ element }) => element));
    for (const viewport of this.seen) viewport.isAlone = this.name === "1x1";
    this.#mark();
  }

  #mark() {
    for (const viewport of this.viewports) viewport.element.classList.toggle("active", viewport === this.active);
  }
}

const planeOf = (viewport) => viewport.stack?.planeAt(viewport.position) ?? null;

// Where a plane lies along the normal of another one, in mm.
const along = (plane, { orientation }) => dot(plane.position, normalOf(orientation));

// The position of the slice that is nearest to a plane; null where the stacks are not parallel.
function nearest(viewport, from, offset) {
  let best = null;
  let least = Infinity;
  for (let position = 0; position < (viewport.stack?.length ?? 0); position++) {
    const plane = viewport.stack.planeAt(position);
    if (!plane || !areParallel(plane.orientation, from.orientation)) continue;
    const isShared = plane.frameOfReferenceUID && plane.frameOfReferenceUID === from.frameOfReferenceUID;
    const away = Math.abs(along(plane, plane) - along(from, plane) - (isShared ? 0 : offset));
    // Of several slices at one place, as phases of the heart are, the one that is seen stays.
    const isNearer = away < least - 1e-3 || (away < least + 1e-3 && position === viewport.position);
    if (isNearer) [best, least] = [position, away];
  }
  return best;
}

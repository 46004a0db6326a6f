// One viewport: a stage with the picture of a stack, what is written around it and drawn on it.
import { loader } from "./api.js";
import { CineController } from "./client/cine.js";
import { pixelShape } from "./client/geometry.js";
import { StackController } from "./client/stack.js";
import { Corners } from "./corners.js";
import { DocumentPanel } from "./documents.js";
import { el, svg } from "./dom.js";
import { Drawing } from "./measurements.js";
import { View } from "./view.js";
import { describeWindow, hasWindow, parseWindow, renderingOf } from "./windows.js";

/**
 * Events: "moved" (another position, window or size is wanted), "shown" (there is a picture or a
 * sentence), "played".
 */
export class Viewport extends EventTarget {
  view = new View();
  study = null; // Of the series; a prior has another one than the page.
  series = null;
  stack = null;
  window = parseWindow();
  shown = null; // {place, position, isSmall, isLossy} of the picture that is seen.
  #image = el("canvas", { class: "image", role: "img", hidden: true });
  #bitmap = null; // What is drawn on it, in the size of the picture.
  #painted = null;
  #reason = el("p", { class: "reason", role: "status", hidden: true });
  #turn = 0; // Counts pictures that are being decoded.

  constructor(name) {
    super();
    this.controller = new StackController(loader);
    this.cine = new CineController(this.controller);
    this.drawing = new Drawing(this);
    this.corners = new Corners(this);
    this.document = new DocumentPanel(this);
    this.lines = svg("g", { class: "reference-lines" });
    this.stage = el(
      "div",
      { class: "stage", tabindex: "0", role: "group", "aria-label": `Picture ${name}`, "aria-describedby": "position-text" },
      this.#image,
      svg("svg", { class: "drawing", "aria-hidden": "true" }, this.lines, this.drawing.element),
      this.#reason,
    );
    this.element = el("section", { class: "viewport", "aria-label": `Viewport ${name}` }, this.stage, ...this.corners.elements, this.document.element);
    this.controller.addEventListener("move", () => this.dispatchEvent(new Event("moved")));
    this.controller.addEventListener("picture", ({ detail }) => this.#show(detail));
    this.controller.addEventListener("fail", ({ detail }) => this.#fail(detail.error));
    this.cine.addEventListener("change", () => this.dispatchEvent(new Event("played")));
    this.cine.addEventListener("speed", () => this.dispatchEvent(new Event("played")));
    new ResizeObserver(() => {
      this.view.setStage(this.stage.clientWidth, this.stage.clientHeight);
      this.lay();
    }).observe(this.stage);
  }

  get position() {
    return this.controller.position;
  }

  /** The instance and frame that is wanted; undefined while nothing is open. */
  get place() {
    return this.stack?.places[this.position];
  }

  /** Show a stack of a study's series. */
  open(study, series, stack, position, window) {
    const isOther = this.stack !== stack;
    if (isOther) {
      this.close();
      this.study = study;
      this.series = series;
      this.stack = stack;
      this.cine.speed = speedOf(stack.places[position]?.instance);
    }
    this.window = window;
    this.controller.open(stack.frames, position, renderingOf(window));
    this.#explain();
  }

  /** The stack with what was added to it meanwhile; the picture stays. */
  replaceStack(series, stack) {
    const place = this.place;
    const found = place ? stack.find(place.instance.id, place.frameIndex) : -1;
    this.series = series;
    this.stack = stack;
    this.controller.open(stack.frames, found < 0 ? this.position : found, renderingOf(this.window));
    this.#explain();
  }

  /** Stop, and free the pictures of the stack. */
  close() {
    this.cine.stop();
    this.controller.close();
    this.document.close();
    this.#turn += 1;
    this.#drop();
    if (this.stack) loader.drop(this.stack.instances.map(({ id }) => id));
    this.study = this.series = this.stack = this.shown = null;
    this.#image.hidden = this.#reason.hidden = true;
    this.view.reset();
    this.setInverted(false);
    this.lines.replaceChildren();
    this.lay();
  }

  step(by) {
    this.controller.step(by);
  }

  goTo(position) {
    this.controller.goTo(position);
  }

  setWindow(window, { isDragging = false } = {}) {
    if (!this.place || !hasWindow(this.place.instance)) return;
    this.window = window;
    this.controller.setRendering(renderingOf(window), { isDragging });
  }

  setInverted(isInverted) {
    this.isInverted = isInverted;
    this.element.classList.toggle("inverted", isInverted);
  }

  /** Lay picture and drawing after a change of the view. */
  lay() {
    this.view.lay(this.#image);
    this.#paint();
    this.drawing.draw();
    this.corners.turn();
    this.dispatchEvent(new Event("laid"));
  }

  /** Say a sentence in place of a picture. */
  say(sentence) {
    this.#turn += 1;
    this.#image.hidden = true;
    this.shown = null;
    this.#reason.textContent = sentence;
    this.#reason.hidden = false;
    this.lay();
    this.dispatchEvent(new Event("shown"));
  }

  /** Take the sentence away: what has no picture is shown in another way. */
  hush() {
    this.#reason.hidden = true;
  }

  // What has no picture says why.
  #explain() {
    const { place } = this;
    if (place?.instance.numberOfFrames > 0) this.document.close();
    if (!place) this.say("There is no image in this series.");
    else if (place.instance.numberOfFrames === 0) {
      this.say(place.instance.notRenderableReason ?? "This object contains no picture.");
    }
  }

  #fail(error) {
    this.say(error.retryAfter > 0 ? `${error.message} Trying again …` : error.message);
  }

  // Drawn when it is decoded, so that nothing flickers. What browsers keep of <img> is never given back;
  // a bitmap ends when it is told to.
  async #show({ picture, position, isSmall, isLossy }) {
    const turn = ++this.#turn;
    const place = this.stack?.places[position];
    if (!place) return;
    const bitmap = await createImageBitmap(picture.blob).catch(() => null);
    if (turn !== this.#turn) return void bitmap?.close(); // Another one came first.
    if (!bitmap) return this.say("The picture is damaged.");
    this.#drop();
    this.#bitmap = bitmap;
    const { instance, frameIndex } = place;
    this.shown = { place, position, isSmall, isLossy: isLossy || instance.lossyImageCompression === true };
    const quality = this.shown.isLossy ? ", lossy" : "";
    const label = `Image ${position + 1} of ${this.stack.length}, ${describeWindow(this.window, instance)}${quality}`;
    this.#image.setAttribute("aria-label", label);
    Object.assign(this.#image.dataset, { instance: instance.id, frame: frameIndex, source: picture.url, width: bitmap.width });
    this.view.setPicture(instance.columns ?? bitmap.width, instance.rows ?? bitmap.height, pixelShape(instance));
    this.#image.hidden = false;
    this.#reason.hidden = true;
    this.lay();
    this.dispatchEvent(new Event("shown"));
  }

  // In the size of the page where that is smaller: the browser shrinks better here than while it composes.
  #paint() {
    const bitmap = this.#bitmap;
    if (!bitmap) return;
    const [across, down] = this.view.size.map((side) => Math.max(1, Math.round(side * devicePixelRatio)));
    const [width, height] = [Math.min(bitmap.width, across), Math.min(bitmap.height, down)];
    if (this.#painted === bitmap && this.#image.width === width && this.#image.height === height) return;
    Object.assign(this.#image, { width, height });
    const context = this.#image.getContext("2d", { alpha: false });
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    this.#painted = bitmap;
  }

  #drop() {
    this.#bitmap?.close();
    this.#bitmap = this.#painted = null;
  }
}

const USUAL_SPEED = 15; // Frames per second, where the file says nothing.

// RecommendedDisplayFrameRate, FrameTime in milliseconds (PS3.3 C.7.6.5).
function speedOf(instance) {
  const { recommendedDisplayFrameRate: rate, frameTime: time } = instance ?? {};
  return rate > 0 ? rate : time > 0 ? 1000 / time : USUAL_SPEED;
}

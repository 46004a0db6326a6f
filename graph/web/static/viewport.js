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
  #image = el("img", { class: "image", alt: "", hidden: true });
  #reason = el("p", { class: "reason", role: "status", hidden: true });
  #unpin = () => {};
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
    this.#unpin();
    if (this.stack) loader.drop(this.stack.instances.map(({ id }) => id));
    this.study = this.series = this.stack = this.shown = null;
    this.#image.hidden = this.#reason.hidden = true;
    this.#image.removeAttribute("src");
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

  // The decoded element replaces the previous one, so that nothing flickers.
  async #show({ picture, position, isSmall, isLossy }) {
    const turn = ++this.#turn;
    const place = this.stack?.places[position];
    if (!place) return;
    const unpin = loader.pin(picture);
    const next = el("img", { class: "image", draggable: "false", src: picture.src });
    try {
      await next.decode();
    } catch {
      unpin();
      if (turn === this.#turn) this.say("The picture is damaged.");
      return;
    }
    if (turn !== this.#turn) return unpin(); // Another one came first.
    this.#unpin();
    this.#unpin = unpin;
    const { instance, frameIndex } = place;
    this.shown = { place, position, isSmall, isLossy: isLossy || instance.lossyImageCompression === true };
    const quality = this.shown.isLossy ? ", lossy" : "";
    next.alt = `Image ${position + 1} of ${this.stack.length}, ${describeWindow(this.window, instance)}${quality}`;
    Object.assign(next.dataset, { instance: instance.id, frame: frameIndex, source: picture.url });
    this.view.setPicture(instance.columns ?? next.naturalWidth, instance.rows ?? next.naturalHeight, pixelShape(instance));
    this.view.lay(next);
    this.#image.replaceWith(next);
    this.#image = next;
    this.#reason.hidden = true;
    this.lay();
    this.dispatchEvent(new Event("shown"));
  }
}

const USUAL_SPEED = 15; // Frames per second, where the file says nothing.

// RecommendedDisplayFrameRate, FrameTime in milliseconds (PS3.3 C.7.6.5).
function speedOf(instance) {
  const { recommendedDisplayFrameRate: rate, frameTime: time } = instance ?? {};
  return rate > 0 ? rate : time > 0 ? 1000 / time : USUAL_SPEED;
}

// The viewer: one <img> that shows one position of a stack in one window.
import { byId, wait } from "./dom.js";
import { loadPicture, pixelShape } from "./pictures.js";
import { describeWindow, hasWindow, parseWindow } from "./windows.js";

const AHEAD = 6; // Neighbours that are loaded before they are asked for, on each side.
const OLD_URL = new Set([0, 403, 410]); // Expired, its key gone, or an answer that we may not read.
const RETRIES = 6; // While the server says "try again later".

// Show pixels in their real proportions: the larger side of a pixel is stretched.
function shape(image, { naturalWidth, naturalHeight }, pixelHeight) {
  const across = naturalWidth * Math.max(1, 1 / pixelHeight);
  const down = naturalHeight * Math.max(1, pixelHeight);
  image.style.setProperty("--across", `${across}px`);
  image.style.setProperty("--down", `${down}px`);
  image.style.setProperty("--ratio", across / down);
}

export class Viewer extends EventTarget {
  #stack = null;
  #position = 0;
  #window = parseWindow();
  #drawing = false;
  #isStale = false;
  #isPlaying = false;
  #image = byId("picture");

  get stack() {
    return this.#stack;
  }

  get position() {
    return this.#position;
  }

  get window() {
    return this.#window;
  }

  /** The displayed instance and frame; undefined before a stack is open. */
  get place() {
    return this.#stack?.at(this.#position);
  }

  /** Whether the displayed picture lost anything: in the file, or because it is played as JPEG. */
  get isLossy() {
    return this.#isPlaying || this.place?.instance.lossyImageCompression === true;
  }

  /** Open a stack at a 0-based position. */
  open(stack, position, window) {
    this.#stack = stack;
    this.#position = position;
    this.#window = window;
    return this.#redraw();
  }

  close() {
    this.#stack = null;
    this.#image.hidden = true;
  }

  /** Go to a position, limited to the stack. */
  goTo(position) {
    const target = Math.min(Math.max(0, position), (this.#stack?.length ?? 1) - 1);
    if (target !== this.#position) {
      this.#position = target;
      return this.#redraw();
    }
  }

  step(by) {
    return this.goTo(this.#position + by);
  }

  /** Change the window; while the pointer drags, neighbours are not preloaded. */
  setWindow(window, { isDragging = false } = {}) {
    this.#window = window;
    return this.#redraw({ isDragging });
  }

  /** While a stack is played, pictures come as JPEG: smaller, and with slightly other grey levels. */
  setPlaying(isPlaying) {
    if (isPlaying === this.#isPlaying) return undefined;
    this.#isPlaying = isPlaying;
    return isPlaying ? undefined : this.#redraw();
  }

  /** Fit the picture to the stage, or show it at 1:1. */
  setZoom(zoom) {
    byId("stage").classList.toggle("one-to-one", zoom === "1");
  }

  /** Load the picture of a position, with a new URL if the old one has expired. */
  async load(position) {
    const stack = this.#stack; // Another one may be open after a wait.
    for (let attempt = 1; ; attempt++) {
      const window = hasWindow(stack.at(position).instance) ? this.#window : parseWindow();
      const url = await stack.url(position, window, { format: this.#isPlaying ? "jpg" : "png" });
      if (url === null) throw new Error("This image was deleted. Open the series again.");
      try {
        return await loadPicture(url);
      } catch (error) {
        const isOld = OLD_URL.has(error.status) && attempt < 3;
        const comesLater = error.retryAfter > 0 && attempt < RETRIES;
        if (isOld) stack.forget(position);
        else if (comesLater) await this.#waitFor(error, stack, position);
        else throw error;
      }
    }
  }

  // A neighbour that loads later must not replace the displayed picture.
  async #waitFor(error, stack, position) {
    if (stack === this.#stack && position === this.#position) this.#say(`${error.message} Trying again …`);
    await wait(error.retryAfter * 1000);
  }

  // Load one picture at a time, always the latest requested: a fast wheel or mouse builds no queue.
  async #redraw({ isDragging = false } = {}) {
    this.dispatchEvent(new Event("moved"));
    this.#isStale = true;
    if (this.#drawing) return;
    this.#drawing = true;
    while (this.#isStale && this.#stack) {
      this.#isStale = false;
      await this.#draw();
    }
    this.#drawing = false;
    if (this.#stack && !isDragging) this.#loadNeighbours();
  }

  async #draw() {
    const { place } = this;
    if (!place) return this.#say("There is no image in this series.");
    if (place.instance.numberOfFrames === 0) {
      return this.#say(place.instance.notRenderableReason ?? "This object contains no picture.");
    }
    try {
      const picture = await this.load(this.#position);
      if (place === this.place) this.#show(picture, place);
    } catch (error) {
      if (place === this.place) this.#say(error.message);
    }
  }

  // The decoded element replaces the previous one, so that nothing flickers.
  #show(picture, { instance, frameIndex }) {
    const next = picture.isConnected ? picture : picture.cloneNode();
    next.id = "picture";
    next.draggable = false;
    next.hidden = false;
    const quality = this.isLossy ? ", lossy" : "";
    shape(next, picture, pixelShape(instance));
    next.alt = `Image ${this.#position + 1} of ${this.#stack.length}, ${describeWindow(this.#window, instance)}${quality}`;
    next.dataset.instance = instance.id;
    next.dataset.frame = frameIndex;
    if (next !== this.#image) this.#image.replaceWith(next);
    this.#image = next;
    byId("reason").hidden = true;
    this.dispatchEvent(new Event("shown"));
  }

  #say(sentence) {
    this.#image.hidden = true;
    byId("reason").textContent = sentence;
    byId("reason").hidden = false;
    this.dispatchEvent(new Event("shown"));
  }

  #loadNeighbours() {
    for (let distance = 1; distance <= AHEAD; distance++) {
      for (const position of [this.#position + distance, this.#position - distance]) {
        const place = this.#stack.at(position);
        // An error here occurs again when the picture is shown, and is reported then.
        if (place && place.instance.numberOfFrames > 0) this.load(position).catch(() => null);
      }
    }
  }
}

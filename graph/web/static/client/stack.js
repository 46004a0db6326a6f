// A stack of frames at one position: what to fetch and in which order, so that something is always shown.

const AHEAD = 8; // Neighbours that are loaded in the direction of travel.
const AHEAD_SMALL = 20; // Small ones while a slow line scrolls: a second of a fast wheel.
const BEHIND = 3; // And in the other one.
const REST = 140; // Milliseconds without a step: time for full pictures.
const SMALL = 256; // Longest side of the picture that comes first on slow lines.
const AT_ONCE = 4; // Windows under way while one is dragged.

/**
 * @typedef {import("./addresses.js").FrameRef} FrameRef
 * @typedef {import("./addresses.js").Rendering} Rendering
 * @typedef {import("./picture.js").Picture} Picture
 */
/**
 * @typedef {object} Shown What the event "picture" carries in `detail`.
 * @property {Picture} picture
 * @property {number} position The position that it shows; another one may be wanted already.
 * @property {boolean} isSmall A full one follows.
 * @property {boolean} isLossy It came as JPEG.
 */

/**
 * Shows one position of a list of frames. Events: "move" (the position or the rendering is another one),
 * "picture" (`detail` is Shown), "fail" (`detail` is {error, position}; `error.retryAfter` means that it goes on).
 */
export class StackController extends EventTarget {
  #loader;
  #frames = /** @type {(FrameRef | null)[]} */ ([]);
  #position = 0;
  #rendering = /** @type {Rendering} */ ({});
  #direction = 1;
  #isMoving = false;
  #restTimer = 0;
  #turn = 0; // Counts positions and renderings: a late picture must not replace a newer one.
  #shownTurn = -1;
  #isShownFull = false;
  #dragged = 0; // Windows under way.
  #isDragWaiting = false;

  /** @param {import("./loader.js").PictureLoader} loader */
  constructor(loader) {
    super();
    this.#loader = loader;
    /** What cine wants: "jpg" while the line is too slow for PNG. @type {"png" | "jpg"} */
    this.format = "png";
    /** Turned off by whoever loads ahead itself, as cine does. */
    this.loadsAhead = true;
  }

  get loader() {
    return this.#loader;
  }

  get length() {
    return this.#frames.length;
  }

  get position() {
    return this.#position;
  }

  get rendering() {
    return this.#rendering;
  }

  /** @param {number} position @returns {FrameRef | null | undefined} null has no picture. */
  at(position) {
    return this.#frames[position];
  }

  /**
   * Show a stack.
   * @param {(FrameRef | null)[]} frames null where there is nothing to show.
   * @param {number} [position] 0-based.
   * @param {Rendering} [rendering]
   */
  open(frames, position = 0, rendering = {}) {
    this.#loader.keepOnly(this);
    this.#frames = frames;
    this.#position = Math.min(Math.max(0, position), Math.max(0, frames.length - 1));
    this.#rendering = rendering;
    this.#direction = 1;
    this.#shownTurn = this.#turn + 1; // What comes late belongs to another stack.
    this.#change(false);
  }

  /** Stop loading. */
  close() {
    clearTimeout(this.#restTimer);
    this.#loader.keepOnly(this);
    this.#frames = [];
    this.#shownTurn = this.#turn += 1;
  }

  /** Go to a position, limited to the stack. @param {number} position */
  goTo(position) {
    const target = Math.min(Math.max(0, position), this.length - 1);
    if (target === this.#position || this.length === 0) return;
    this.#direction = Math.sign(target - this.#position);
    this.#position = target;
    this.#change(true);
  }

  /** @param {number} by */
  step(by) {
    this.goTo(this.#position + by);
  }

  /**
   * Show the stack in another rendering.
   * @param {Rendering} rendering
   * @param {{isDragging?: boolean}} [options] While a pointer drags, neighbours are not loaded.
   */
  setRendering(rendering, { isDragging = false } = {}) {
    this.#rendering = rendering;
    this.#change(isDragging, isDragging);
  }

  /** Load and show the position again, as after a failure. */
  reload() {
    this.#change(false);
  }

  #change(isMoving, isDragging = false) {
    this.#turn += 1;
    this.#isShownFull = false;
    this.dispatchEvent(new Event("move"));
    this.#isMoving = isMoving;
    clearTimeout(this.#restTimer);
    if (isMoving) this.#restTimer = window.setTimeout(() => this.#rest(), REST);
    this.#update(isDragging);
  }

  #rest() {
    this.#isMoving = false;
    this.#update(false);
  }

  #update(isDragging) {
    const ref = this.#frames[this.#position];
    if (!ref) return;
    const full = { ...this.#rendering, format: this.format };
    const small = { ...this.#rendering, format: /** @type {const} */ ("jpg"), maxSize: SMALL };
    const isSlow = this.#loader.isSlow && this.loadsAhead;
    const isHere = this.#loader.find(ref, full) !== undefined;
    const wanted = [];
    if (isSlow && !isHere) wanted.push({ position: this.#position, ref, rendering: small, priority: 0, isSmall: true });
    if (isHere || !isSlow || !this.#isMoving) {
      wanted.push({ position: this.#position, ref, rendering: full, priority: isSlow ? 1 : 0, isSmall: false });
    }
    if (isDragging) return this.#drag(wanted);
    if (this.loadsAhead) wanted.push(...this.#neighbours(isSlow && this.#isMoving ? small : full, isSlow && !this.#isMoving ? small : null));
    this.#loader.keepOnly(this, wanted);
    for (const want of wanted) this.#want(want);
  }

  // Windows follow each other faster than a line answers: a few are under way, the newest comes last.
  #drag(wanted) {
    if (this.#dragged >= AT_ONCE) {
      this.#isDragWaiting = true;
      return;
    }
    for (const want of wanted) {
      this.#dragged += 1;
      this.#want(want).finally(() => {
        this.#dragged -= 1;
        if (!this.#isDragWaiting) return;
        this.#isDragWaiting = false;
        this.#update(this.#isMoving);
      });
    }
  }

  #neighbours(rendering, before) {
    const found = [];
    const add = (distance, rank) => {
      const position = this.#position + distance * this.#direction;
      const ref = this.#frames[position];
      if (!ref) return;
      if (before) found.push({ position, ref, rendering: before, priority: 2 + rank });
      found.push({ position, ref, rendering, priority: (before ? 20 : 2) + rank });
    };
    const ahead = rendering.maxSize ? AHEAD_SMALL : AHEAD;
    for (let distance = 1; distance <= ahead; distance++) {
      add(distance, distance);
      if (distance <= BEHIND) add(-distance, distance + 0.5);
    }
    return found;
  }

  async #want({ position, ref, rendering, priority, isSmall }) {
    const turn = this.#turn;
    const isCurrent = position === this.#position;
    const fail = (error) => {
      if (turn !== this.#turn || isSmall) return;
      this.dispatchEvent(new CustomEvent("fail", { detail: { error, position } }));
    };
    try {
      const near = this.#frames.slice(Math.max(0, position - 32), position + 64).filter((one) => one !== null);
      const options = { priority, owner: this, near, ...(isCurrent && !isSmall ? { onWait: fail } : {}) };
      const picture = this.#loader.find(ref, rendering) ?? (await this.#loader.load(ref, rendering, options));
      if (isCurrent) this.#show(turn, { picture, position, isSmall, isLossy: rendering.format === "jpg" });
    } catch (error) {
      // An error of a neighbour occurs again when it is shown, and is reported then.
      if (error.name !== "AbortError" && isCurrent) fail(error);
    }
  }

  #show(turn, shown) {
    if (turn < this.#shownTurn || this.length === 0) return;
    if (turn === this.#shownTurn && this.#isShownFull && shown.isSmall) return;
    this.#shownTurn = turn;
    this.#isShownFull = !shown.isSmall;
    this.dispatchEvent(new CustomEvent("picture", { detail: shown }));
  }
}

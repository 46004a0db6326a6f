// How a picture lies on its stage: zoom, place, turn, mirror. Positions on the picture are in its
// pixels, positions on the stage in CSS pixels from the upper left corner.

const MOST = 40; // CSS pixels per pixel of the picture.
const LEAST = 0.02;

export class View {
  #size = { columns: 1, rows: 1, across: 1, down: 1 };
  #stage = { width: 1, height: 1 };
  #scale = null; // CSS pixels per pixel of the picture; null: as large as fits.
  #x = 0; // From the middle of the stage to the middle of the picture.
  #y = 0;
  #turn = 0; // Degrees, clockwise, after mirroring.
  #isMirrored = false;

  /** Of a picture: pixels, and how tall one is for its width. The larger side of a pixel is stretched. */
  setPicture(columns, rows, pixelHeight) {
    this.#size = { columns, rows, across: columns * Math.max(1, 1 / pixelHeight), down: rows * Math.max(1, pixelHeight) };
  }

  setStage(width, height) {
    this.#stage = { width, height };
  }

  /** Whether the picture is as large as fits. */
  get isFit() {
    return this.#scale === null;
  }

  get scale() {
    return this.#scale ?? this.#fit;
  }

  get turn() {
    return this.#turn;
  }

  get isMirrored() {
    return this.#isMirrored;
  }

  get #fit() {
    const { across, down } = this.#size;
    const [width, height] = this.#turn % 180 ? [down, across] : [across, down];
    return Math.min(this.#stage.width / width, this.#stage.height / height);
  }

  /** Width and height of the picture before it is turned, in CSS pixels. */
  get size() {
    return [this.#size.across * this.scale, this.#size.down * this.scale];
  }

  /** Show the picture in a size, null as large as fits, in the middle of the stage. */
  setScale(scale) {
    this.#scale = scale;
    this.#x = this.#y = 0;
  }

  /** Zoom; what is at this point of the stage stays there. */
  zoomAt(factor, [x, y]) {
    const before = this.scale;
    this.#scale = Math.min(MOST, Math.max(LEAST, before * factor));
    const grown = this.#scale / before;
    const [right, down] = [x - this.#stage.width / 2, y - this.#stage.height / 2];
    this.#x = right - (right - this.#x) * grown;
    this.#y = down - (down - this.#y) * grown;
  }

  /** Move the picture; half of it stays in sight. */
  move(right, down) {
    if (this.isFit) this.#scale = this.scale;
    const { width, height } = this.#stage;
    const [across, tall] = [this.#size.across * this.scale, this.#size.down * this.scale];
    const [w, h] = this.#turn % 180 ? [tall, across] : [across, tall];
    const limit = (value, most) => Math.min(most, Math.max(-most, value));
    this.#x = limit(this.#x + right, (w + width) / 2 - 40);
    this.#y = limit(this.#y + down, (h + height) / 2 - 40);
  }

  /** Turn by 90 degrees, clockwise or not. */
  rotate(by) {
    this.#turn = (this.#turn + by + 360) % 360;
    [this.#x, this.#y] = by > 0 ? [-this.#y, this.#x] : [this.#y, -this.#x];
  }

  /** Mirror what is seen, left to right or top to bottom. */
  mirror(axis) {
    this.#turn = ((axis === "x" ? 360 : 540) - this.#turn) % 360;
    this.#isMirrored = !this.#isMirrored;
    if (axis === "x") this.#x = -this.#x;
    else this.#y = -this.#y;
  }

  reset() {
    this.#turn = 0;
    this.#isMirrored = false;
    this.setScale(null);
  }

  /** From the picture to the stage. */
  toStage([column, row]) {
    const { columns, rows, across, down } = this.#size;
    const [x, y] = this.#turned((column / columns - 0.5) * across * this.scale, (row / rows - 0.5) * down * this.scale);
    return [x + this.#x + this.#stage.width / 2, y + this.#y + this.#stage.height / 2];
  }

  /** From the stage to the picture; may lie beside it. */
  toPicture([left, top]) {
    const { columns, rows, across, down } = this.#size;
    const [x, y] = this.#turnedBack(left - this.#x - this.#stage.width / 2, top - this.#y - this.#stage.height / 2);
    return [(x / (across * this.scale) + 0.5) * columns, (y / (down * this.scale) + 0.5) * rows];
  }

  /** The direction on the picture, along rows and down columns, that goes right or down on the stage. */
  directionOf(right, down) {
    return this.#turnedBack(right, down);
  }

  /** Lay the element of the picture. */
  lay(image) {
    const [across, down] = this.size;
    image.style.width = `${across}px`;
    image.style.height = `${down}px`;
    const mirror = this.#isMirrored ? " scaleX(-1)" : "";
    const turn = this.#turn ? ` rotate(${this.#turn}deg)` : "";
    image.style.transform = `translate(-50%, -50%) translate(${this.#x}px, ${this.#y}px)${turn}${mirror}`;
  }

  #turned(x, y) {
    const across = this.#isMirrored ? -x : x;
    const [cos, sin] = QUARTERS[this.#turn / 90];
    return [across * cos - y * sin, across * sin + y * cos];
  }

  #turnedBack(x, y) {
    const [cos, sin] = QUARTERS[this.#turn / 90];
    const across = x * cos + y * sin;
    return [this.#isMirrored ? -across : across, y * cos - x * sin];
  }
}

const QUARTERS = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // Cosine and sine.

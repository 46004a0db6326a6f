// Cine: plays a stack at a speed; what is late is waited for, so that no gap appears.

const AHEAD = 24; // Pictures that are on their way while one is shown.
const LATE = 3; // Pictures in a row that come too late: the line is too slow for PNG.
const ROOM = 1.5; // The line must be so much faster than the pictures need.

const wait = (/** @type {number} */ milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Plays a StackController. Events: "change" (it began or ended), "speed". */
export class CineController extends EventTarget {
  #stack;
  #speed = 15;
  #run = 0; // Counts starts and stops: a loop of before ends.
  #late = 0;

  /** @param {import("./stack.js").StackController} stack */
  constructor(stack) {
    super();
    this.#stack = stack;
    this.isPlaying = false;
  }

  /** Frames per second. */
  get speed() {
    return this.#speed;
  }

  set speed(value) {
    this.#speed = Math.min(60, Math.max(1, Math.round(value)));
    this.dispatchEvent(new Event("speed"));
  }

  toggle() {
    if (this.isPlaying) this.stop();
    else this.play();
  }

  async play() {
    if (this.isPlaying || this.#stack.length < 2) return;
    const run = ++this.#run;
    this.isPlaying = true;
    this.#late = 0;
    this.#stack.loadsAhead = false;
    this.#stack.format = this.#isLineFast() ? "png" : "jpg";
    this.dispatchEvent(new Event("change"));
    const { length } = this.#stack;
    while (this.#run === run && this.#stack.length === length) await this.#playOne(run);
    if (this.#run === run) this.stop();
  }

  stop() {
    if (!this.isPlaying) return;
    this.#run += 1;
    this.isPlaying = false;
    this.#stack.loader.keepOnly(this);
    this.#stack.loadsAhead = true;
    this.#stack.format = "png";
    this.dispatchEvent(new Event("change"));
    if (this.#stack.length) this.#stack.reload();
  }

  // JPEG has slightly other grey levels: only where PNG would stutter.
  #isLineFast() {
    const { loader, position, rendering } = this.#stack;
    const ref = this.#stack.at(position);
    const shown = ref && loader.find(ref, { ...rendering, format: "png" });
    return shown ? loader.rate > ROOM * shown.bytes * this.#speed : false;
  }

  async #playOne(run) {
    const due = performance.now() + 1000 / this.#speed;
    const { length, position } = this.#stack;
    const wanted = [];
    for (let ahead = 1; ahead <= Math.min(AHEAD, length - 1); ahead++) wanted.push(this.#at((position + ahead) % length));
    const loads = wanted.map((one, i) => this.#load(one, i === 0 ? 0 : 1 + i));
    this.#stack.loader.keepOnly(this, wanted.filter((one) => one !== null));
    await loads[0];
    this.#late = performance.now() > due + 5 ? this.#late + 1 : 0;
    if (this.#late >= LATE) this.#stack.format = "jpg";
    await wait(Math.max(0, due - performance.now()));
    if (this.#run === run) this.#stack.goTo((position + 1) % length);
  }

  #at(position) {
    const ref = this.#stack.at(position);
    return ref ? { ref, rendering: { ...this.#stack.rendering, format: this.#stack.format } } : null;
  }

  // A picture that fails to load is reported when it is shown.
  async #load(wanted, priority) {
    if (wanted) await this.#stack.loader.load(wanted.ref, wanted.rendering, { priority, owner: this }).catch(() => null);
  }
}

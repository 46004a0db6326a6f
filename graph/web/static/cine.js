// Cine playback of a stack: a picture is shown when it has loaded, so that no gap appears.
import { graphql } from "./api.js";
import { byId, wait } from "./dom.js";

const AHEAD = 24; // Pictures that are on their way while one is shown.
const USUAL_SPEED = 15; // Frames per second, where the file says nothing.
const SPEED_TAGS = [
  ["00082144", (value) => value], // RecommendedDisplayFrameRate (PS3.3 C.7.6.5)
  ["00180040", (value) => value], // CineRate
  ["00181063", (value) => 1000 / value], // FrameTime, in milliseconds
];

const TAGS = "query Tags($id: ID!) { node(id: $id) { ... on Instance { tags } } }";

/** Start and stop playback, at the speed of the slider. */
export class Cine {
  #viewer;
  #isPlaying = false;
  #speedOf = null; // The instance whose speed the slider shows.

  constructor(viewer) {
    this.#viewer = viewer;
    byId("play").addEventListener("click", () => this.toggle());
    byId("speed").addEventListener("input", () => this.#showSpeed());
    this.#showSpeed();
  }

  toggle() {
    if (this.#isPlaying) this.stop();
    else this.play();
  }

  stop() {
    this.#isPlaying = false;
    this.#viewer.setPlaying(false);
    byId("play").setAttribute("aria-pressed", "false");
    byId("play").textContent = "Play";
  }

  changeSpeed(by) {
    byId("speed").valueAsNumber += by;
    this.#showSpeed();
  }

  async play() {
    const { stack } = this.#viewer;
    if (!stack || stack.length < 2) return;
    this.#isPlaying = true;
    this.#viewer.setPlaying(true);
    byId("play").setAttribute("aria-pressed", "true");
    byId("play").textContent = "Stop";
    await this.#takeSpeedOf(this.#viewer.place.instance);
    while (this.#isPlaying && this.#viewer.stack === stack) await this.#playOne(stack);
  }

  async #playOne(stack) {
    const due = performance.now() + 1000 / byId("speed").valueAsNumber;
    const next = (this.#viewer.position + 1) % stack.length;
    for (let ahead = 2; ahead <= Math.min(AHEAD, stack.length - 1); ahead++) {
      this.#load(stack, (this.#viewer.position + ahead) % stack.length);
    }
    await this.#load(stack, next);
    await wait(Math.max(0, due - performance.now()));
    if (this.#isPlaying && this.#viewer.stack === stack) await this.#viewer.goTo(next);
  }

  // A picture that fails to load is reported when playback reaches it.
  async #load(stack, position) {
    if (stack.at(position).instance.numberOfFrames > 0) await this.#viewer.load(position).catch(() => null);
  }

  async #takeSpeedOf({ id, numberOfFrames }) {
    if (id === this.#speedOf || numberOfFrames < 2) return;
    this.#speedOf = id;
    const answer = await graphql(TAGS, { id }).catch(() => null); // The usual speed plays too.
    const tags = answer?.node?.tags ?? {};
    const speeds = SPEED_TAGS.map(([tag, read]) => read(tags[tag]?.Value?.[0]));
    byId("speed").valueAsNumber = Math.round(speeds.find((speed) => speed > 0 && Number.isFinite(speed)) ?? USUAL_SPEED);
    this.#showSpeed();
  }

  #showSpeed() {
    byId("speed-text").textContent = `${byId("speed").value} /s`;
  }
}

// Signed URLs of frames: known for a while, asked for together, renewed before they end.
import { PictureError } from "./picture.js";

const MARGIN = 20_000; // Milliseconds: an address that ends so soon is not used any more.
const MOST_REFS = 500; // Frames in one query, the server's limit.

const URLS = `query FrameUrls($refs: [FrameRef!]!) {
  frames(refs: $refs) { url path urlExpiresAt }
}`;

/** @typedef {{instanceId: string, index: number}} FrameRef An instance's `id` and a 0-based frame. */
/**
 * @typedef {object} Rendering How a frame is shown; {} is the window of the file.
 * @property {number} [center] Centre of a window, in output units of the modality LUT.
 * @property {number} [width] Its width.
 * @property {boolean} [fullRange] Minimum to maximum.
 * @property {number} [maxSize] Longest side in pixels.
 * @property {"png" | "jpg"} [format] JPEG is smaller and lossy.
 */
/**
 * The variant of a signed address: at most 6 significant digits.
 * @param {Rendering} rendering
 */
export function variantOf({ center, width, fullRange, maxSize, format = "png" }) {
  const spell = (/** @type {number} */ number) => String(Number(number.toPrecision(6)) || 0);
  const window = width ? `w${spell(center ?? 0)}x${spell(width)}` : "default";
  return `${fullRange ? "full" : window}${maxSize ? `-s${maxSize}` : ""}.${format}`;
}

/** One signature is valid for all frames and renderings of an instance. */
export class AddressBook {
  #connection;
  #resolve;
  #known = new Map(); // Instance -> {before, expiresAt}.
  /** @type {{ids: Set<string>, answer: Promise<void>} | null} The query that is being collected. */
  #asking = null;

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {(address: {url: string, path: string}) => string} [resolve] Makes the address that is used of those
   *   that the server tells; a page behind a proxy of its own takes the path.
   */
  constructor(connection, resolve = ({ url }) => url) {
    this.#connection = connection;
    this.#resolve = resolve;
  }

  /**
   * Tell an address that came with another query.
   * @param {string} instanceId @param {{url: string, path: string, urlExpiresAt: string}} address Of any of its frames.
   */
  learn(instanceId, { url, path, urlExpiresAt }) {
    const address = this.#resolve({ url, path });
    // .../<frame>/<variant>.png: the signature covers what stands before.
    const before = address.slice(0, address.lastIndexOf("/", address.lastIndexOf("/") - 1));
    this.#known.set(instanceId, { before, expiresAt: Date.parse(urlExpiresAt) });
  }

  /** The server does not accept it any more. @param {string} instanceId */
  forget(instanceId) {
    this.#known.delete(instanceId);
  }

  clear() {
    this.#known.clear();
  }

  /**
   * A URL that is valid now.
   * @param {FrameRef} ref
   * @param {Rendering} rendering
   * @param {FrameRef[]} [near] Frames that will be needed soon: asked for in the same query.
   * @returns {Promise<string>}
   * @throws {PictureError} There is no such frame.
   */
  async of(ref, rendering, near = []) {
    if (!this.#isValid(ref.instanceId)) {
      // Those that are asked for at the same time share one query.
      this.#asking ??= { ids: new Set(), answer: Promise.resolve().then(() => this.#renew()) };
      const { ids, answer } = this.#asking;
      ids.add(ref.instanceId);
      for (const { instanceId } of near) {
        if (ids.size < MOST_REFS && !this.#isValid(instanceId)) ids.add(instanceId);
      }
      await answer;
    }
    const address = this.#known.get(ref.instanceId);
    if (!address) throw new PictureError("This image was deleted. Open the series again.", 404);
    return `${address.before}/${ref.index}/${variantOf(rendering)}`;
  }

  async #renew() {
    const ids = [...(this.#asking?.ids ?? [])];
    this.#asking = null;
    for (let begin = 0; begin < ids.length; begin += MOST_REFS) {
      const some = ids.slice(begin, begin + MOST_REFS);
      const refs = some.map((instanceId) => ({ instanceId, index: 0 }));
      const { frames } = await this.#connection.query(URLS, { refs });
      frames.forEach((frame, i) => (frame ? this.learn(some[i], frame) : this.#known.delete(some[i])));
    }
  }

  #isValid(instanceId) {
    const known = this.#known.get(instanceId);
    return known !== undefined && known.expiresAt - this.#connection.serverNow() > MARGIN;
  }
}

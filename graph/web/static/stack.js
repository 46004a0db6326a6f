// A series as one stack: all frames of all instances in order, and the URLs around the current position.
import { graphql, serverNow } from "./api.js";

const PAGE = 500; // Instances per request, the largest page that the server gives.
const CHUNK = 32; // Instances whose URLs are asked for at once.
const MARGIN = 20_000; // A URL that ends within these milliseconds is not used any more.

const INSTANCES = `query Stack($series: ID!, $first: Int!, $offset: Int!) {
  node(id: $series) {
    ... on Series {
      instances(first: $first, offset: $offset) {
        id sopClassName instanceNumber rows columns bitsAllocated photometricInterpretation
        windowCenter windowWidth windows { center width explanation } numberOfFrames
        notRenderableReason pixelSpacing imagerPixelSpacing pixelAspectRatio
        lossyImageCompression lossyImageCompressionRatio
      }
    }
  }
}`;

const URLS = `query FrameUrls($series: ID!, $first: Int!, $offset: Int!) {
  node(id: $series) {
    ... on Series {
      instances(first: $first, offset: $offset) { id frameUrlTemplate frame { urlExpiresAt } }
    }
  }
}`;

export class Stack {
  #positions = []; // {instance, instanceIndex, frameIndex}; what can't be shown has one place too.
  #templates = new Map();
  #asked = new Map(); // Requests under way, by offset: neighbours wait for the same answer.

  /** @param seriesId The API's `id`: two patients' series may share one SeriesInstanceUID. */
  constructor(seriesId) {
    this.series = seriesId;
  }

  /** Query all instances of the series. */
  async load() {
    for (let offset = 0; ; offset += PAGE) {
      const { node } = await graphql(INSTANCES, { series: this.series, first: PAGE, offset });
      const instances = node?.instances ?? [];
      instances.forEach((instance, i) => this.#add(instance, offset + i));
      if (instances.length < PAGE) return this;
    }
  }

  #add(instance, instanceIndex) {
    for (let frameIndex = 0; frameIndex < Math.max(1, instance.numberOfFrames); frameIndex++) {
      this.#positions.push({ instance, instanceIndex, frameIndex });
    }
  }

  get length() {
    return this.#positions.length;
  }

  /** The instance and frame at a 0-based position. */
  at(position) {
    return this.#positions[position];
  }

  /** The position of a frame, or 0 if the stack does not contain it. */
  find(instanceId, frameIndex = 0) {
    const found = this.#positions.findIndex(
      (place) => place.instance.id === instanceId && place.frameIndex === frameIndex,
    );
    return Math.max(0, found);
  }

  /**
   * A URL that is valid now, of one position in one window. One signature is valid for all frames
   * and windows of an instance, so that dragging a window asks the server for pictures only.
   * @param format "png", or "jpg" where speed counts more than exact grey levels.
   * @returns {Promise<string|null>} null when there is none.
   */
  async url(position, window, { format = "png" } = {}) {
    const { instance, instanceIndex, frameIndex } = this.#positions[position];
    if (!this.#isValid(instance.id)) await this.#ask(chunkOf(instanceIndex));
    const template = this.#templates.get(instance.id)?.template;
    if (!template) return null;
    const filled = template.replace("{frame}", frameIndex).replace("{variant}", variantOf(window));
    return filled.replace(/png$/, format);
  }

  /** Discard the URLs of a position's instance, because the server no longer accepts them. */
  forget(position) {
    this.#templates.delete(this.#positions[position].instance.id);
  }

  #isValid(instanceId) {
    const known = this.#templates.get(instanceId);
    return known !== undefined && known.expiresAt - serverNow() > MARGIN;
  }

  #ask(offset) {
    if (!this.#asked.has(offset)) {
      this.#asked.set(offset, this.#fetch(offset).finally(() => this.#asked.delete(offset)));
    }
    return this.#asked.get(offset);
  }

  async #fetch(offset) {
    const { node } = await graphql(URLS, { series: this.series, first: CHUNK, offset });
    for (const { id, frameUrlTemplate, frame } of node?.instances ?? []) {
      if (frame === null) continue; // It has no picture.
      this.#templates.set(id, { template: frameUrlTemplate, expiresAt: Date.parse(frame.urlExpiresAt) });
    }
  }
}

const chunkOf = (index) => Math.floor(index / CHUNK) * CHUNK;

// The spelling of a window in URLs: at most 6 significant digits.
function variantOf({ center, width, full }) {
  const spell = (number) => String(Number(number.toPrecision(6)) || 0);
  if (full) return "full";
  return width ? `w${spell(center)}x${spell(width)}` : "default";
}

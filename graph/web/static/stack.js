// A series as one stack: all frames of all instances in order, and the URLs around the current position.
import { graphql, serverNow } from "./api.js";

const PAGE = 500; // Instances per request, the largest page that the server gives.
const CHUNK = 32; // URLs per request: about a second of cine ahead.
const MARGIN = 20_000; // A URL that ends within these milliseconds is not used any more.

const INSTANCES = `query Stack($series: ID!, $first: Int!, $offset: Int!) {
  node(id: $series) {
    ... on Series {
      instances(first: $first, offset: $offset) {
        id sopClassName instanceNumber rows columns bitsAllocated photometricInterpretation
        windowCenter windowWidth numberOfFrames notRenderableReason
      }
    }
  }
}`;

const URLS = `query FrameUrls($series: ID!, $first: Int!, $offset: Int!, $firstFrame: Int!, $frames: Int!,
                $center: Float, $width: Float, $full: Boolean!) {
  node(id: $series) {
    ... on Series {
      instances(first: $first, offset: $offset) {
        id
        frames(first: $frames, offset: $firstFrame) {
          index urlExpiresAt url(windowCenter: $center, windowWidth: $width, fullRange: $full)
        }
      }
    }
  }
}`;

const keyOf = (instanceId, frameIndex, window) => `${window.key}/${instanceId}/${frameIndex}`;

export class Stack {
  #positions = []; // {instance, instanceIndex, frameIndex}; what can't be shown has one place too.
  #urls = new Map();
  #asked = new Map(); // Chunks under way: neighbours wait for the same answer.

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

  /** A valid URL of a position in a window, or null. */
  async url(position, window, { alone = false } = {}) {
    const place = this.#positions[position];
    const key = keyOf(place.instance.id, place.frameIndex, window);
    if (!this.#isValid(key)) await this.#ask(alone ? onlyThis(place) : around(place), window);
    return this.#urls.get(key)?.url ?? null;
  }

  /** Discard the URL of a position, because the server no longer accepts it. */
  forget(position, window) {
    const place = this.#positions[position];
    this.#urls.delete(keyOf(place.instance.id, place.frameIndex, window));
  }

  #isValid(key) {
    const known = this.#urls.get(key);
    return known !== undefined && known.expiresAt - serverNow() > MARGIN;
  }

  #ask(part, window) {
    const name = JSON.stringify([part, window.key]);
    if (!this.#asked.has(name)) {
      this.#asked.set(name, this.#fetch(part, window).finally(() => this.#asked.delete(name)));
    }
    return this.#asked.get(name);
  }

  async #fetch(part, window) {
    const { center = null, width = null, full = false } = window;
    const { node } = await graphql(URLS, { series: this.series, ...part, center, width, full });
    for (const { id, frames } of node?.instances ?? []) {
      for (const { index, url, urlExpiresAt } of frames) {
        const expiresAt = Date.parse(urlExpiresAt);
        this.#urls.set(keyOf(id, index, window), { url, expiresAt });
      }
    }
  }
}

const chunkOf = (index) => Math.floor(index / CHUNK) * CHUNK;

function onlyThis({ instanceIndex, frameIndex }) {
  return { first: 1, offset: instanceIndex, firstFrame: frameIndex, frames: 1 };
}

// The neighbours of a position: frames of a multi-frame instance, or instances of a series.
function around({ instance, instanceIndex, frameIndex }) {
  if (instance.numberOfFrames > 1) {
    return { first: 1, offset: instanceIndex, firstFrame: chunkOf(frameIndex), frames: CHUNK };
  }
  return { first: CHUNK, offset: chunkOf(instanceIndex), firstFrame: 0, frames: 1 };
}

// Pictures of frames: fetched in order of need, cancelled when nobody wants them, kept by bytes.
import { AddressBook, variantOf } from "./addresses.js";
import { Picture, PictureError } from "./picture.js";

const OLD_ADDRESS = new Set([0, 403, 410]); // Expired, its key gone, or an answer that we may not read.
const RETRIES = 6; // While the server says "try again later".
const CONNECTIONS = 6; // What browsers open to one host by HTTP/1.1.
const KEPT_FREE = 2; // Of them, for what is wanted now.
const SMOOTHING = 0.3; // Share of the newest measurement.
const SLOW = 80; // Milliseconds: pictures that take longer come small first.
const MEGABYTE = 1024 * 1024;

/** @typedef {import("./addresses.js").FrameRef} FrameRef */
/** @typedef {import("./addresses.js").Rendering} Rendering */

/** Bytes of pictures to keep on this device: it tells its memory in GB, at most 8, or nothing. */
export function usualBudget() {
  const memory = /** @type {any} */ (navigator).deviceMemory ?? 4;
  return Math.min(256, Math.max(32, memory * 16)) * MEGABYTE;
}

const keyOf = ({ instanceId, index }, rendering) => `${instanceId}/${index}/${variantOf(rendering)}`;

/**
 * Loads pictures. A picture that several want is fetched once; what nobody wants any more is cancelled.
 */
export class PictureLoader {
  #budget;
  #pictures = new Map(); // Key -> Picture, newest use last.
  #jobs = new Map(); // Key -> what is waited for or under way.
  #running = 0;
  #fetching = 0;
  #bytes = 0;
  #busySince = 0;
  #received = 0;

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {{maxBytes?: number, resolve?: (address: {url: string, path: string}) => string}} [options]
   *   `resolve` makes an address of its own where the page reaches the server by a proxy.
   */
  constructor(connection, { maxBytes = usualBudget(), resolve } = {}) {
    this.#budget = maxBytes;
    /** Where the pictures are. */
    this.addresses = new AddressBook(connection, resolve);
    /** Bytes per second of the line, as measured; 0 before the first picture. */
    this.rate = 0;
    /** Milliseconds from asking for a picture to having it; 0 before the first. */
    this.delay = 0;
  }

  /** Whether pictures come so slowly that small ones should come first. */
  get isSlow() {
    return this.delay === 0 || this.delay > SLOW;
  }

  /** Bytes of the pictures that are kept. */
  get keptBytes() {
    return this.#bytes;
  }

  /** A picture that is here. @param {FrameRef} ref @param {Rendering} rendering @returns {Picture | undefined} */
  find(ref, rendering) {
    const key = keyOf(ref, rendering);
    const picture = this.#pictures.get(key);
    if (picture) {
      this.#pictures.delete(key);
      this.#pictures.set(key, picture);
    }
    return picture;
  }

  /**
   * Load a picture.
   * @param {FrameRef} ref
   * @param {Rendering} [rendering]
   * @param {object} [options]
   * @param {number} [options.priority] 0 is fetched first.
   * @param {any} [options.owner] Who wants it, for `keepOnly`; without one it is never cancelled.
   * @param {(error: PictureError) => void} [options.onWait] The server said "later"; it is asked again.
   *   Without it such an answer is an error.
   * @param {FrameRef[]} [options.near] Frames whose addresses will be needed soon: asked for in the same query.
   * @returns {Promise<Picture>} Rejected with PictureError, or AbortError where it was cancelled.
   */
  load(ref, rendering = {}, { priority = 0, owner = null, onWait, near } = {}) {
    const found = this.find(ref, rendering);
    if (found) return Promise.resolve(found);
    const key = keyOf(ref, rendering);
    let job = this.#jobs.get(key);
    if (!job) {
      job = { key, ref, rendering, priority, owners: new Set(), listeners: new Set(), near, cancel: new AbortController(), isFetching: false };
      job.promise = new Promise((resolve, reject) => Object.assign(job, { resolve, reject }));
      this.#jobs.set(key, job);
      queueMicrotask(() => this.#pump());
    }
    job.priority = Math.min(job.priority, priority);
    job.owners.add(owner);
    if (onWait) job.listeners.add(onWait);
    return job.promise;
  }

  /**
   * Cancel what an owner asked for before and does not want any more.
   * @param {any} owner
   * @param {{ref: FrameRef, rendering: Rendering}[]} wanted
   */
  keepOnly(owner, wanted = []) {
    const keys = new Set(wanted.map(({ ref, rendering }) => keyOf(ref, rendering)));
    for (const job of [...this.#jobs.values()]) {
      if (keys.has(job.key) || !job.owners.delete(owner) || job.owners.size > 0) continue;
      this.#jobs.delete(job.key);
      job.cancel.abort();
      job.promise.catch(() => null);
      job.reject(new DOMException("Nobody wants it any more.", "AbortError"));
    }
  }

  /** Keep a picture while it is used. @param {Picture} picture @returns {() => void} Ends the use. */
  pin(picture) {
    picture.pins += 1;
    let isPinned = true;
    return () => {
      if (isPinned) picture.pins -= 1;
      isPinned = false;
      this.#shrink();
    };
  }

  /** Drop the pictures of some instances, or of all. @param {Iterable<string>} [instanceIds] */
  drop(instanceIds) {
    const gone = instanceIds && new Set(instanceIds);
    for (const [key, picture] of this.#pictures) {
      if (picture.pins === 0 && (!gone || gone.has(key.slice(0, key.indexOf("/"))))) this.#remove(key, picture);
    }
    if (!gone) this.addresses.clear();
  }

  // Start what is needed most, as long as there is room.
  #pump() {
    for (;;) {
      const waiting = [...this.#jobs.values()].filter((job) => !job.isFetching);
      if (waiting.length === 0) return;
      const next = waiting.reduce((best, job) => (job.priority < best.priority ? job : best));
      const room = next.priority === 0 ? CONNECTIONS : CONNECTIONS - KEPT_FREE;
      if (this.#running >= room) return;
      next.isFetching = true;
      this.#run(next);
    }
  }

  async #run(job) {
    this.#running += 1;
    try {
      const picture = await this.#fetchUntilThere(job);
      if (this.#jobs.get(job.key) !== job) return; // Cancelled.
      this.#pictures.set(job.key, picture);
      this.#bytes += picture.bytes;
      this.#shrink();
      job.resolve(picture);
    } catch (error) {
      job.promise.catch(() => null); // Whoever still waits gets it too.
      job.reject(error);
    } finally {
      this.#running -= 1;
      if (this.#jobs.get(job.key) === job) this.#jobs.delete(job.key);
      this.#pump();
    }
  }

  async #fetchUntilThere(job) {
    for (let attempt = 1; ; attempt++) {
      const url = await this.addresses.of(job.ref, job.rendering, job.near);
      try {
        return await this.#fetch(job, url);
      } catch (error) {
        if (job.cancel.signal.aborted) throw error;
        const isOld = OLD_ADDRESS.has(error.status) && attempt < 3;
        const comesLater = error.retryAfter > 0 && attempt < RETRIES && job.listeners.size > 0;
        if (isOld) this.addresses.forget(job.ref.instanceId);
        else if (comesLater) await this.#later(job, error);
        else throw error;
      }
    }
  }

  async #later(job, error) {
    for (const listen of job.listeners) listen(error);
    this.#running -= 1; // Others go first.
    this.#pump();
    await new Promise((done) => setTimeout(done, error.retryAfter * 1000));
    this.#running += 1;
    job.cancel.signal.throwIfAborted();
  }

  async #fetch(job, url) {
    const { signal } = job.cancel;
    const started = performance.now();
    if (this.#fetching++ === 0) this.#busySince = started;
    try {
      const priority = job.priority === 0 ? "high" : "low";
      const response = await fetch(url, /** @type {RequestInit} */ ({ signal, priority }));
      if (!response.ok) throw await PictureError.of(response);
      const blob = await response.blob();
      this.#measure(blob.size, performance.now() - started, job.rendering);
      return new Picture(blob, url);
    } catch (error) {
      if (signal.aborted || error instanceof PictureError) throw error;
      throw new PictureError("The server does not answer. Is it running?", 0);
    } finally {
      this.#fetching -= 1;
    }
  }

  // The rate is that of the whole line: requests at the same time share it.
  #measure(bytes, milliseconds, { maxSize }) {
    this.#received += bytes;
    const busy = performance.now() - this.#busySince;
    if (busy > 50) {
      const now = (this.#received / busy) * 1000;
      this.rate = this.rate ? this.rate + SMOOTHING * (now - this.rate) : now;
      this.#busySince = performance.now();
      this.#received = 0;
    }
    // Small pictures tell the delay of the line, full ones that and their own weight.
    const weight = maxSize && this.delay > milliseconds ? SMOOTHING / 4 : SMOOTHING;
    this.delay = this.delay ? this.delay + weight * (milliseconds - this.delay) : milliseconds;
  }

  #shrink() {
    for (const [key, picture] of this.#pictures) {
      if (this.#bytes <= this.#budget) return;
      if (picture.pins === 0) this.#remove(key, picture);
    }
  }

  #remove(key, picture) {
    this.#pictures.delete(key);
    this.#bytes -= picture.bytes;
    picture.release();
  }
}

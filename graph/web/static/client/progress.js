// How far an upload is: the files by what the server tells, the bytes by what the browser has sent.

const SMOOTHING = 0.2; // Share of the newest second in the rate that people see.

/** @typedef {{received: number, checked: number, stored: number, failed: number}} Counts */

/** What became of the files: by the answers of batches, and of the batch under way by what the server tells. */
export class Tally {
  #ended = { received: 0, checked: 0, stored: 0, failed: 0 };
  #now = /** @type {Counts | null} */ (null);
  #batch = 0; // Files of the batch under way.
  #before = 0; // Files of the batches before it, and after it.
  #after;

  /** @param {number} files */
  constructor(files) {
    this.#after = files;
  }

  /** @param {number} size */
  begin(size) {
    this.#batch = size;
    this.#after -= size;
  }

  /** @param {Counts} counts */
  follow(counts) {
    this.#now = counts.received > 0 ? counts : null;
  }

  /** @param {import("./upload.js").UploadResult[]} results */
  end(results) {
    const stored = results.filter(({ status }) => status === "STORED" || status === "ALREADY_STORED").length;
    this.#ended.received += results.length;
    this.#ended.checked += results.length;
    this.#ended.stored += stored;
    this.#ended.failed += results.length - stored;
    this.#before += this.#batch;
    this.#batch = 0;
    this.#now = null;
  }

  get counts() {
    const ended = this.#ended;
    const now = this.#now ?? { received: this.#batch, checked: 0, stored: 0, failed: 0 };
    return {
      files: ended.received + now.received + this.#after,
      checked: ended.checked + now.checked,
      stored: ended.stored + now.stored,
      failed: ended.failed + now.failed,
    };
  }

  get fraction() {
    const now = this.#now;
    const done = this.#before + (now ? (this.#batch * (now.stored + now.failed)) / now.received : 0);
    return Math.min(1, done / Math.max(1, this.#before + this.#batch + this.#after));
  }
}

/** How fast the bytes go, and how long the rest takes. */
export class Meter {
  #rate = 0;
  #sent = 0;
  #at = performance.now();

  /** @param {number} total */
  constructor(total) {
    this.total = total;
  }

  /** @param {number} sent */
  read(sent) {
    const seconds = (performance.now() - this.#at) / 1000;
    if (seconds >= 0.25) {
      const now = (sent - this.#sent) / seconds;
      this.#rate = this.#rate ? this.#rate + SMOOTHING * (now - this.#rate) : now;
      this.#sent = sent;
      this.#at = performance.now();
    }
    const left = this.#rate > 0 ? (this.total - sent) / this.#rate : null;
    return { sent, total: this.total, rate: this.#rate, left };
  }
}

// Uploads files in batches, so that the first results arrive early and each request stays small.
import { uploadFiles } from "./api.js";

const MOST_FILES = 40;
const MOST_BYTES = 128 * 1024 * 1024;
const SMOOTHING = 0.2; // Share of the newest second in the rate that people see.

/** Split files into batches, one per request. */
export function batchesOf(files) {
  const batches = [];
  let bytes = Infinity;
  for (const entry of files) {
    bytes += entry.file.size;
    if (bytes > MOST_BYTES || batches.at(-1).length >= MOST_FILES) {
      batches.push([]);
      bytes = entry.file.size;
    }
    batches.at(-1).push(entry);
  }
  return batches;
}

/**
 * Upload files and report progress.
 * @param onProgress called with {sent, total, rate, left}: bytes, bytes per second, seconds
 * @param onResults  called with the UploadResults of each request
 * @returns {Promise<void>} Rejected with AbortError if the upload was cancelled.
 */
export async function sendAll(files, { onProgress, onResults, signal }) {
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  const meter = new Meter(total);
  let done = 0;
  for (const batch of batchesOf(files)) {
    signal.throwIfAborted();
    const size = batch.reduce((sum, { file }) => sum + file.size, 0);
    const report = (sent) => onProgress(meter.read(done + Math.min(sent, size)));
    onResults(await sendOne(batch, report, signal));
    done += size;
    onProgress(meter.read(done));
  }
}

// If a request fails, all its files are reported as failed, and the next request is sent.
async function sendOne(batch, onProgress, signal) {
  try {
    return await uploadFiles(batch, { onProgress, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const { message, code = "HTTP" } = error;
    return batch.map(({ name }) => ({ fileName: name, status: "FAILED", error: { code, message }, instance: null }));
  }
}

class Meter {
  #rate = 0;
  #sent = 0;
  #at = performance.now();

  constructor(total) {
    this.total = total;
  }

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

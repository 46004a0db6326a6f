// Uploads files in batches, so that the first results arrive early and each request stays small.
import { ServerError } from "./connection.js";

const MOST_FILES = 40;
const MOST_BYTES = 128 * 1024 * 1024;
const SMOOTHING = 0.2; // Share of the newest second in the rate that people see.

const UPLOAD = `mutation Upload($files: [Upload!]!) {
  uploadDicom(files: $files) {
    results {
      fileName status error { code message }
      instance { series { study { id studyDescription patientDisplayName } } }
    }
  }
}`;

/**
 * @typedef {{file: Blob, name: string}} NamedFile
 * @typedef {object} UploadProgress
 * @property {number} sent Bytes.
 * @property {number} total Bytes.
 * @property {number} answered Files that the server has answered for.
 * @property {number} rate Bytes per second.
 * @property {number | null} left Seconds until all is sent.
 * @property {boolean} isStoring All bytes of the batch are there, and the server checks and stores them.
 */
/**
 * @typedef {object} UploadResult
 * @property {string} fileName
 * @property {"STORED" | "ALREADY_STORED" | "CONFLICT" | "REJECTED" | "FAILED"} status
 * @property {{code: string, message: string} | null} error
 * @property {any} instance
 */

/**
 * Split files into batches, one per request.
 * @param {NamedFile[]} files
 * @returns {NamedFile[][]}
 */
export function batchesOf(files) {
  const batches = /** @type {NamedFile[][]} */ ([]);
  let bytes = Infinity;
  for (const entry of files) {
    bytes += entry.file.size;
    if (bytes > MOST_BYTES || batches[batches.length - 1].length >= MOST_FILES) {
      batches.push([]);
      bytes = entry.file.size;
    }
    batches[batches.length - 1].push(entry);
  }
  return batches;
}

/**
 * Upload DICOM files and ZIP archives of them.
 * @param {import("./connection.js").Connection} connection
 * @param {NamedFile[]} files
 * @param {object} [options]
 * @param {(progress: UploadProgress) => void} [options.onProgress]
 * @param {(results: UploadResult[]) => void} [options.onResults] Called for each batch; one result per DICOM file.
 * @param {AbortSignal} [options.signal]
 * @returns {Promise<void>} Rejected with AbortError if the upload was cancelled.
 */
export async function uploadAll(connection, files, options = {}) {
  const { onProgress = () => {}, onResults = () => {}, signal = new AbortController().signal } = options;
  const meter = new Meter(files.reduce((sum, { file }) => sum + file.size, 0));
  let done = 0;
  let answered = 0;
  for (const batch of batchesOf(files)) {
    signal.throwIfAborted();
    const size = batch.reduce((sum, { file }) => sum + file.size, 0);
    // The form around the files counts as well: it is full a little before the last byte is sent.
    const report = (/** @type {number} */ sent) =>
      onProgress({ ...meter.read(done + Math.min(sent, size)), answered, isStoring: sent >= size });
    onResults(await uploadBatch(connection, batch, report, signal));
    done += size;
    answered += batch.length;
    onProgress({ ...meter.read(done), answered, isStoring: false });
  }
}

// If a request fails, all its files are reported as failed, and the next request is sent.
async function uploadBatch(connection, batch, onProgress, signal) {
  try {
    const data = await connection.authenticated(() => post(connection, multipart(batch), onProgress, signal));
    return data.uploadDicom.results;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const { message, code = "HTTP" } = error;
    return batch.map(({ name }) => ({ fileName: name, status: "FAILED", error: { code, message }, instance: null }));
  }
}

// The GraphQL multipart request specification.
function multipart(files) {
  const body = new FormData();
  const variables = { files: files.map(() => null) };
  body.set("operations", JSON.stringify({ query: UPLOAD, variables }));
  body.set("map", JSON.stringify(Object.fromEntries(files.map((_, i) => [i, [`variables.files.${i}`]]))));
  files.forEach(({ file, name }, i) => body.set(String(i), file, name));
  return body;
}

// XMLHttpRequest, because fetch does not report upload progress.
function post(connection, body, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open("POST", connection.endpoint);
    request.responseType = "json";
    request.setRequestHeader("GraphQL-Preflight", "1");
    for (const [name, value] of Object.entries(connection.authorization)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.upload.onload = () => onProgress(Infinity);
    request.onload = () =>
      request.response
        ? resolve(request.response)
        : reject(new ServerError(`The server answered with HTTP status ${request.status}.`, "HTTP"));
    request.onerror = () => reject(new ServerError("The connection broke.", "NETWORK"));
    request.onabort = () => reject(new DOMException("Cancelled.", "AbortError"));
    request.onloadend = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort);
    request.send(body);
  });
}

class Meter {
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

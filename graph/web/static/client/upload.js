// Uploads files in batches, so that the first results arrive early and each request stays small.
import { ServerError } from "./connection.js";
import { Meter, Tally } from "./progress.js";

const MOST_FILES = 40;
const MOST_BYTES = 128 * 1024 * 1024;
const PATIENCE = 500; // Milliseconds after which a batch that is being stored is followed: most are done before.

const UPLOAD = `mutation Upload($files: [Upload!]!) {
  uploadDicom(files: $files) {
    results {
      fileName status error { code message }
      instance { series { study { id studyDescription patientDisplayName } } }
    }
  }
}`;

const PROGRESS = `subscription UploadProgress($id: ID!) {
  uploadProgress(uploadId: $id) { received checked stored failed }
}`;

/**
 * @typedef {{file: Blob, name: string}} NamedFile
 * @typedef {object} UploadProgress
 * @property {number} sent Bytes.
 * @property {number} total Bytes.
 * @property {number} rate Bytes per second.
 * @property {number | null} left Seconds until all is sent.
 * @property {boolean} isStoring All bytes of the batch are there, and the server checks and stores them.
 * @property {number} files All files; an archive counts as its members as soon as the server has opened it.
 * @property {number} checked Files that the server has read, and brought into the archive or refused.
 * @property {number} stored Files that are stored, new or not.
 * @property {number} failed Files that are not.
 * @property {number} fraction Of the whole work, 0 to 1: sending is half of it, storing the other half.
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
  const tally = new Tally(files.length);
  let done = 0;
  for (const batch of batchesOf(files)) {
    signal.throwIfAborted();
    const size = batch.reduce((sum, { file }) => sum + file.size, 0);
    const id = newId();
    let sent = 0;
    const report = () => onProgress(progressOf(meter.read(done + Math.min(sent, size)), tally, sent >= size));
    const follower = new Follower(connection, id, (counts) => {
      tally.follow(counts);
      report();
    });
    tally.begin(batch.length);
    const onSent = (/** @type {number} */ bytes) => {
      // The form around the files counts as well: it is full a little before the last byte is sent.
      sent = bytes;
      if (sent >= size) follower.start();
      report();
    };
    try {
      const results = await uploadBatch(connection, batch, id, onSent, signal);
      tally.end(results);
      onResults(results);
    } finally {
      follower.stop();
    }
    done += size;
    onProgress(progressOf(meter.read(done), tally, false));
  }
}

function progressOf(line, tally, isStoring) {
  const fraction = ((line.total ? line.sent / line.total : 1) + tally.fraction) / 2;
  return { ...line, isStoring, ...tally.counts, fraction };
}

// Not `randomUUID`, which pages without HTTPS do not have.
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Follows a batch that the server has and does not answer for at once. */
class Follower {
  #start;
  #timer;
  #end = () => {};

  /**
   * @param {import("./connection.js").Connection} connection @param {string} id
   * @param {(counts: import("./progress.js").Counts) => void} onCounts
   */
  constructor(connection, id, onCounts) {
    const onData = ({ uploadProgress }) => onCounts(uploadProgress);
    this.#start = () => (this.#end = connection.subscribe(PROGRESS, { variables: { id }, onData }));
  }

  start() {
    this.#timer ??= setTimeout(this.#start, PATIENCE);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#end();
  }
}

// If a request fails, all its files are reported as failed, and the next request is sent.
async function uploadBatch(connection, batch, id, onSent, signal) {
  try {
    const data = await connection.authenticated(() => post(connection, multipart(batch), id, onSent, signal));
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
function post(connection, body, id, onSent, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open("POST", connection.endpoint);
    request.responseType = "json";
    request.setRequestHeader("GraphQL-Preflight", "1");
    request.setRequestHeader("Upload-Id", id);
    for (const [name, value] of Object.entries(connection.authorization)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onSent(event.loaded);
    request.upload.onload = () => onSent(Infinity);
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

// The GraphQL endpoint: queries with fetch, uploads as GraphQL multipart requests.
import { askForToken, authorization, token } from "./session.js";

/** Relative to this file, /static/DIGEST/api.js: the server may stand under any path of a proxy. */
export const ENDPOINT = new URL("../../graphql", import.meta.url).href;
let clockOffset = 0;

/** An error of the server: `code` for programs, `message` for people. */
export class ApiError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/** The server's clock in milliseconds. Expiry times are the server's; the clock of this machine may be wrong. */
export const serverNow = () => Date.now() + clockOffset;

/** Execute an operation and return its `data`. Asks for a token where one is needed. */
export async function graphql(query, variables = {}, { signal } = {}) {
  for (;;) {
    const used = token();
    const response = await send({ query, variables }, signal);
    const answer = await readAnswer(response);
    const error = answer.errors?.[0];
    if (error?.extensions?.code === "UNAUTHENTICATED") await askForToken(used);
    else if (error) throw new ApiError(error.message, error.extensions?.code);
    else return answer.data;
  }
}

async function send(body, signal) {
  const headers = { "Content-Type": "application/json", ...authorization() };
  try {
    const response = await fetch(ENDPOINT, { method: "POST", headers, body: JSON.stringify(body), signal });
    const date = Date.parse(response.headers.get("date"));
    if (date) clockOffset = date - Date.now();
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it running?", "NETWORK");
  }
}

async function readAnswer(response) {
  try {
    return await response.json();
  } catch {
    throw new ApiError(`The server answered with HTTP status ${response.status}.`, "HTTP");
  }
}

const UPLOAD = `mutation Upload($files: [Upload!]!) {
  uploadDicom(files: $files) {
    results {
      fileName status error { code message }
      instance { series { study { id studyDescription patientDisplayName } } }
    }
  }
}`;

/**
 * Upload files by the GraphQL multipart request specification.
 * XMLHttpRequest, because fetch does not report upload progress.
 * @returns {Promise<object[]>} One UploadResult per DICOM file.
 */
export async function uploadFiles(files, { onProgress, signal }) {
  for (;;) {
    const used = token();
    const answer = await post(multipart(files), onProgress, signal);
    const error = answer.errors?.[0];
    if (error?.extensions?.code === "UNAUTHENTICATED") await askForToken(used);
    else if (error) throw new ApiError(error.message, error.extensions?.code);
    else return answer.data.uploadDicom.results;
  }
}

function multipart(files) {
  const body = new FormData();
  const variables = { files: files.map(() => null) };
  body.set("operations", JSON.stringify({ query: UPLOAD, variables }));
  body.set("map", JSON.stringify(Object.fromEntries(files.map((_, i) => [i, [`variables.files.${i}`]]))));
  files.forEach(({ file, name }, i) => body.set(String(i), file, name));
  return body;
}

function post(body, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", ENDPOINT);
    request.responseType = "json";
    request.setRequestHeader("GraphQL-Preflight", "1");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () =>
      request.response
        ? resolve(request.response)
        : reject(new ApiError(`The server answered with HTTP status ${request.status}.`, "HTTP"));
    request.onerror = () => reject(new ApiError("The connection broke.", "NETWORK"));
    request.onabort = () => reject(new DOMException("Cancelled.", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

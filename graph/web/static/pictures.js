// Pictures of frames: signed URLs in <img>, queried again after they have expired.
import { el } from "./dom.js";

const KEPT = 200; // Decoded pictures that stay ready, newest use last.
const pictures = new Map();

/** Why a picture failed to load: the HTTP `status` (0: no answer), `message` for people. */
export class PictureError extends Error {
  constructor(message, status, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter; // Seconds.
  }
}

/**
 * Load and decode a picture; a picture that was loaded before is returned at once.
 * @returns {Promise<HTMLImageElement>}
 */
export function loadPicture(url) {
  const picture = pictures.get(url) ?? load(url);
  pictures.delete(url);
  pictures.set(url, picture);
  if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
  return picture;
}

async function load(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch {
    pictures.delete(url);
    throw await reasonOf(url);
  }
}

// An <img> does not report why it failed: request the URL again and read the error.
async function reasonOf(url) {
  try {
    const response = await fetch(url);
    const type = response.headers.get("content-type") ?? "";
    const answer = type.includes("json") ? await response.json() : {};
    const message = answer.detail ?? `The picture could not be loaded (HTTP status ${response.status}).`;
    return new PictureError(message, response.status, Number(response.headers.get("retry-after")));
  } catch {
    return new PictureError("The server does not answer. Is it running?", 0);
  }
}

/**
 * How tall a pixel is for its width (PS3.3 C.7.6.3.1.7, C.10.7.1.1): 1 of square pixels and where
 * the file does not tell.
 */
export function pixelShape({ pixelAspectRatio, pixelSpacing, imagerPixelSpacing }) {
  for (const pair of [pixelSpacing, imagerPixelSpacing, pixelAspectRatio]) {
    const [vertical, horizontal] = pair ?? [];
    if (vertical > 0 && horizontal > 0) return vertical / horizontal;
  }
  return 1;
}

/**
 * A small picture for lists.
 * @param frame {url}, or null if nothing can be shown
 * @param renew queries the frame again: lists stay open longer than URLs are valid
 */
export function thumbnail(frame, renew) {
  if (!frame) return el("span", { class: "thumbnail none", "aria-hidden": "true" }, "no image");
  const image = el("img", { class: "thumbnail", alt: "", loading: "lazy", decoding: "async", src: frame.url });
  const failed = () => image.replaceWith(thumbnail(null));
  const retry = async () => {
    image.onerror = failed;
    const again = await renew().catch(() => null);
    if (again && again.url !== image.src) image.src = again.url;
    else failed();
  };
  image.onerror = retry;
  return image;
}

// A picture of a frame, and why there is none.

/** A picture that is here. */
export class Picture {
  #src = "";

  /** @param {Blob} blob @param {string} url The signed URL that it came from. */
  constructor(blob, url) {
    this.blob = blob;
    this.url = url;
    this.bytes = blob.size;
    /** How many use it: those are not dropped. */
    this.pins = 0;
  }

  /** A `blob:` URL for `<img>`: it stays the same and works while the picture is kept. */
  get src() {
    return (this.#src ||= URL.createObjectURL(this.blob));
  }

  /** It is not kept any more. */
  release() {
    if (this.#src) URL.revokeObjectURL(this.#src);
  }
}

/** Why a picture did not load: the HTTP `status` (0: no answer), `message` for people. */
export class PictureError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   * @param {number} [retryAfter] Seconds; 0 where waiting does not help.
   */
  constructor(message, status, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** @param {Response} response @returns {Promise<PictureError>} */
  static async of(response) {
    const isJson = (response.headers.get("content-type") ?? "").includes("json");
    const answer = isJson ? await response.json().catch(() => ({})) : {};
    const message = answer.detail ?? `The picture could not be loaded (HTTP status ${response.status}).`;
    return new PictureError(message, response.status, Number(response.headers.get("retry-after")));
  }
}

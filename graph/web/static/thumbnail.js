// Small pictures of lists: signed URLs in <img>, queried again after they have ended.
import { el } from "./dom.js";

/**
 * A small picture for lists.
 * @param frame {url}, or null if nothing can be shown
 * @param renew queries the frame again: lists stay open longer than URLs are valid
 */
export function thumbnail(frame, renew) {
  if (!frame) return el("span", { class: "thumbnail none", "aria-hidden": "true" }, "no image");
  const image = el("img", { class: "thumbnail", alt: "", loading: "lazy", decoding: "async", draggable: "false", src: frame.url });
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

// What instances without pictures hold: PDFs in a frame, structured reports as text, files to save.
import { graphql } from "./api.js";
import { el, notify } from "./dom.js";
import { bytes } from "./format.js";

const OBJECT = `query Document($id: ID!) {
  viewer { canDownload }
  node(id: $id) {
    ... on Instance {
      fileSizeBytes
      document { mediaType url }
      report {
        title completionFlag verificationFlag verifiedBy isCut
        lines { depth name value }
      }
    }
  }
}`;
// A URL is queried on click: one from the time when the object was shown might have expired.
const FILE = "query File($id: ID!) { node(id: $id) { ... on Instance { fileUrl } } }";
const DOCUMENT = "query DocumentUrl($id: ID!) { node(id: $id) { ... on Instance { document { url } } } }";

/** The panel of a viewport: it covers the picture's place with what the viewport can't show. */
export class DocumentPanel {
  element = el("section", { class: "document", "aria-label": "Document", hidden: true });
  #viewport;
  #shown = null; // The id of the instance that is shown, or null.

  constructor(viewport) {
    this.#viewport = viewport;
    viewport.addEventListener("shown", () => {
      const instance = viewport.place?.instance;
      if (!instance || instance.numberOfFrames > 0) this.close();
      else if (instance.id !== this.#shown) this.#show(instance);
    });
  }

  /** Remove what is shown: no document of a patient stays in a page that shows another one. */
  close() {
    this.#shown = null;
    this.element.replaceChildren();
    this.element.hidden = true;
  }

  async #show(instance) {
    this.close();
    this.#shown = instance.id;
    try {
      const { node, viewer } = await graphql(OBJECT, { id: instance.id });
      if (this.#shown !== instance.id || !node) return;
      this.element.replaceChildren(head(instance, node, viewer), ...body(instance, node));
      this.element.hidden = false;
      this.#viewport.hush();
    } catch (error) {
      if (this.#shown === instance.id) this.#viewport.say(error.message);
    }
  }
}

function head({ id, sopClassName }, { document: held, report, fileSizeBytes }, { canDownload }) {
  const buttons = [];
  const button = (text, action) =>
    buttons.push(el("button", { type: "button", onclick: () => action().catch((error) => notify(error.message)) }, text));
  if (held) button(held.mediaType === "application/pdf" ? "Open in a new tab" : held.mediaType.startsWith("video/") ? "Save video" : "Save document", () => openDocument(id, held.mediaType));
  if (canDownload) button(`Download DICOM file (${bytes(fileSizeBytes)})`, () => download(id));
  return el("header", {}, el("h2", {}, report?.title ?? sopClassName ?? "Object without pictures"), ...buttons);
}

function body(instance, { document: held, report }) {
  if (report) return textOf(report);
  // Without a `sandbox` attribute, in which browsers refuse to show a PDF: its answer has a policy that says the same.
  if (held?.mediaType === "application/pdf") return [el("iframe", { src: held.url, title: "PDF" })];
  if (held?.mediaType === "video/mp4") return [el("video", { src: held.url, controls: true, preload: "metadata" })];
  const reason = held ? `This object holds a document of type ${held.mediaType}.` : instance.notRenderableReason;
  return [el("p", { class: "empty" }, reason ?? "This object contains no picture.")];
}

function textOf({ lines, completionFlag, verificationFlag, verifiedBy, isCut }) {
  const flags = [completionFlag, verificationFlag, verifiedBy.length ? `by ${verifiedBy.join(", ")}` : null];
  return [
    el("p", { class: "flags" }, flags.filter(Boolean).join(" · ")),
    isCut ? el("p", { class: "problem" }, "This report is longer than what is shown here. Download the DICOM file to see all of it.") : null,
    el("div", { class: "lines", tabindex: "0", role: "region", "aria-label": "Report" }, ...lines.map(lineOf)),
  ].filter(Boolean);
}

function lineOf({ depth, name, value }) {
  const place = { class: `depth-${Math.min(depth, 8)}` };
  if (value === null) return el("h3", place, name ?? "—");
  return el("p", place, name ? el("b", {}, `${name}: `) : null, value);
}

async function download(id) {
  const { node } = await graphql(FILE, { id });
  if (!node) throw new Error("This object was deleted.");
  el("a", { href: node.fileUrl, download: "" }).click();
}

async function openDocument(id, mediaType) {
  const { node } = await graphql(DOCUMENT, { id });
  if (!node) throw new Error("This object was deleted.");
  const target = mediaType === "application/pdf" ? { target: "_blank", rel: "noreferrer" } : { download: "" };
  el("a", { href: node.document.url, ...target }).click();
}

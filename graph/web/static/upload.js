// Uploads: drop files, folders or ZIP archives anywhere on the page; a panel shows the progress.
import { connection } from "./api.js";
import { uploadAll } from "./client/upload.js";
import { byId, el } from "./dom.js";
import { readDrop, readFiles } from "./dropped.js";
import { bytes, count, duration, number } from "./format.js";
import { hashOf } from "./place.js";

// Of one file, and of several.
const WORDS = {
  STORED: ["stored", "stored"],
  ALREADY_STORED: ["was there already", "were there already"],
  CONFLICT: ["has the UID of a file with other content", "have the UIDs of files with other content"],
  REJECTED: ["refused", "refused"],
  FAILED: ["failed", "failed"],
};
const MOST_LINES = 500; // Refused files that are listed; more are counted.
let running = 0;

export function startUpload() {
  let depth = 0; // dragenter and dragleave come for every element on the way.
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const show = (isShown) => (byId("drop-target").hidden = !isShown);
  addEventListener("dragenter", (event) => hasFiles(event) && ++depth && show(true));
  addEventListener("dragleave", (event) => hasFiles(event) && show(--depth > 0));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    upload(await readDrop(event.dataTransfer));
  });
  byId("choose-files").addEventListener("click", () => byId("file-input").click());
  byId("file-input").addEventListener("change", (event) => {
    upload(readFiles(event.target.files));
    event.target.value = "";
  });
  addEventListener("beforeunload", (event) => running > 0 && event.preventDefault());
}

async function upload(files) {
  if (files.length === 0) return;
  const cancel = new AbortController();
  const card = new Card(files, () => cancel.abort());
  running += 1;
  try {
    await uploadAll(connection, files, {
      signal: cancel.signal,
      onProgress: (progress) => card.showProgress(progress),
      onResults: (results) => card.addResults(results),
    });
    card.finish("Uploaded");
  } catch (error) {
    card.finish(error.name === "AbortError" ? "Cancelled" : error.message);
  } finally {
    running -= 1;
  }
}

/** The panel of one upload: progress bar, rate, remaining time, results. */
class Card {
  #counts = { STORED: 0, ALREADY_STORED: 0, CONFLICT: 0, REJECTED: 0, FAILED: 0 };
  #studies = new Map();
  #files;
  #failed = 0;
  #title = el("h2", { tabindex: "-1" });
  #bar = el("progress", { max: "1", value: "0", "aria-label": "Upload" });
  #state = el("p", { class: "state" });
  #summary = el("p", { class: "summary", role: "status" });
  #links = el("ul", { class: "links" });
  #problems = el("ul", { class: "problems" });
  #button;

  constructor(files, cancel) {
    this.#files = files;
    this.#title.textContent = `Uploading ${count(files.length, "file")}`;
    this.#button = el("button", { type: "button", onclick: cancel }, "Cancel");
    const head = el("header", {}, this.#title, this.#button);
    this.element = el("article", { class: "upload" }, head, this.#bar, this.#state, this.#summary, this.#links, this.#problems);
    byId("uploads").prepend(this.element);
    byId("uploads").hidden = false;
  }

  showProgress({ sent, total, rate, left, isStoring, files, checked, stored, failed, fraction }) {
    this.#bar.value = fraction;
    const parts = [`${bytes(sent)} of ${bytes(total)} sent`];
    if (checked) parts.push(`${number(checked)} of ${count(files, "file")} checked`);
    if (stored) parts.push(`${number(stored)} stored`);
    if (failed) parts.push(`${number(failed)} not stored`);
    if (isStoring && !checked) parts.push("the server is checking and storing");
    if (!isStoring && rate > 0) parts.push(`${bytes(rate)}/s`);
    if (!isStoring && sent < total && left !== null) parts.push(`${duration(left)} left`);
    this.#state.textContent = parts.join(" · ");
  }

  addResults(results) {
    for (const result of results) {
      this.#counts[result.status] += 1;
      const study = result.instance?.series.study;
      if (study) this.#studies.set(study.id, study);
      if (result.error) this.#addProblem(result);
    }
    this.#summary.textContent = Object.entries(this.#counts)
      .filter(([, amount]) => amount > 0)
      .map(([status, amount]) => `${number(amount)} ${WORDS[status][amount === 1 ? 0 : 1]}`)
      .join(", ");
    this.#links.replaceChildren(...[...this.#studies.values()].map(studyLink));
  }

  finish(word) {
    this.#title.textContent = `${word}: ${count(this.#files.length, "file")}`;
    this.#state.textContent = "";
    this.#bar.hidden = true;
    const close = () => {
      this.element.remove();
      byId("uploads").hidden = byId("uploads").childElementCount === 0;
    };
    const button = el("button", { type: "button", onclick: close }, "Close");
    const hadFocus = document.activeElement === this.#button;
    this.#button.replaceWith(button);
    if (hadFocus) button.focus();
    if (this.#counts.FAILED > 0) this.#offerRetry(close);
  }

  // The failure has nothing to do with the files; sending all of them again stores nothing twice.
  #offerRetry(close) {
    const again = () => {
      close();
      upload(this.#files);
    };
    this.#problems.before(el("button", { type: "button", class: "again", onclick: again }, "Send again"));
  }

  #addProblem({ fileName, status, error }) {
    this.#failed += 1;
    if (this.#failed > MOST_LINES) return;
    const line = el("li", {}, el("b", {}, fileName), ` ${WORDS[status][0]}: `, el("span", {}, error.message));
    this.#problems.append(line);
  }
}

function studyLink({ id, studyDescription, patientDisplayName }) {
  const name = [patientDisplayName || "No name", studyDescription].filter(Boolean).join(" · ");
  return el("li", {}, el("a", { href: hashOf({ study: id }) }, name));
}

// Several studies of the list: chosen, exported as one download, or sent to a modality.
import { graphql } from "./api.js";
import { byId, el, notify } from "./dom.js";
import { count } from "./format.js";
import { followJobs, openSend } from "./sending.js";

const EXPORT = "mutation Export($ids: [ID!]!, $format: ExportFormat!) { exportStudies(ids: $ids, format: $format) { id } }";

const chosen = new Set(); // Node ids.

/** The box of a row, shown while studies are chosen. */
export const choiceBox = (id, name) =>
  el("input", { type: "checkbox", class: "choice", "aria-label": `Choose ${name}`, checked: chosen.has(id) });

/** Offer to choose studies. @param caller  what they may do */
export function startSelection({ canUpload, canDownload }) {
  byId("choose").hidden = !canDownload;
  const run = (format) => async () => {
    try {
      await graphql(EXPORT, { ids: [...chosen], format });
      stop();
      followJobs();
    } catch (error) {
      notify(error.message);
    }
  };
  const amount = el("output", {});
  const actions = [
    canDownload && el("button", { type: "button", class: "primary", onclick: run("ZIP") }, "Export"),
    canDownload && el("button", { type: "button", onclick: run("DICOMDIR"), title: "With a DICOMDIR, for CD or USB" }, "Export for media"),
    canUpload && canDownload && el("button", { type: "button", onclick: () => openSend([...chosen]).catch((error) => notify(error.message)) }, "Send …"),
  ].filter(Boolean);
  const bar = byId("choices");
  bar.replaceChildren(amount, ...actions, el("button", { type: "button", onclick: () => stop() }, "Done"));

  const table = document.querySelector(".studies");
  const show = () => {
    amount.textContent = `${count(chosen.size, "study", "studies")} chosen`;
    for (const button of actions) button.disabled = chosen.size === 0;
  };
  const stop = () => {
    chosen.clear();
    for (const box of table.querySelectorAll(".choice")) box.checked = false;
    setActive(false);
  };
  const setActive = (isActive) => {
    table.classList.toggle("choosing", isActive);
    byId("choose").setAttribute("aria-pressed", isActive);
    bar.hidden = !isActive;
    show();
  };
  byId("choose").addEventListener("click", () => (bar.hidden ? setActive(true) : stop()));
  // The whole row is a link: while studies are chosen it is a check box.
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tbody tr");
    if (bar.hidden || !row) return;
    const box = row.querySelector(".choice");
    if (event.target !== box) {
      event.preventDefault();
      box.checked = !box.checked;
    }
    if (box.checked) chosen.add(row.dataset.id);
    else chosen.delete(row.dataset.id);
    show();
  });
}

// Jobs: what fetches, sends, anonymises and exports, with progress; cancelled and repeated here.
import { connection, graphql, serverNow } from "./api.js";
import { el, notify } from "./dom.js";
import { ago, count, patientName } from "./format.js";
import { hashOf } from "./place.js";

const JOB_FIELDS = `fragment JobFields on Job {
  id kind state fraction total completed failed warnings createdAt createdBy url
  error { message }
  failures { sopInstanceUID error { message } }
  modality { name }
  studies { id patientDisplayName studyDescription studyDate }
  results { id patientDisplayName studyDescription studyDate }
}`;

const JOBS = `query Jobs { jobs(first: 50) { nodes { ...JobFields } } } ${JOB_FIELDS}`;
const EVENTS = `subscription JobEvents { jobEvents { ...JobFields } } ${JOB_FIELDS}`;
const CANCEL = `mutation CancelJob($id: ID!) { cancelJob(id: $id) { ...JobFields } } ${JOB_FIELDS}`;
const RETRY = `mutation RetryJob($id: ID!) { retryJob(id: $id) { ...JobFields } } ${JOB_FIELDS}`;

const KINDS = {
  RETRIEVE: "Fetch from", SEND: "Send to", ANONYMIZE: "Anonymise", MODIFY: "Modify", EXPORT: "Export", BACKUP: "Back up", VERIFY_BACKUP: "Verify backup",
};
const STATES = {
  QUEUED: "waits", RUNNING: "runs", CANCELLING: "is being cancelled", SUCCEEDED: "done", PARTIAL: "partly done", FAILED: "failed", CANCELLED: "cancelled",
};
const RUNS = new Set(["QUEUED", "RUNNING", "CANCELLING"]);
const CAN_RETRY = new Set(["FAILED", "PARTIAL", "CANCELLED"]);
const MOST_FAILURES = 10; // That are listed; more are counted.

let stop = () => {};

export async function showJobs(panel) {
  const list = el("ul", { class: "jobs", "aria-label": "Jobs" });
  const empty = el("p", { class: "empty" }, "No jobs yet. What is fetched, sent, anonymised or exported appears here.");
  const items = new Map();
  const show = (job) => {
    const item = jobItem(job, show);
    if (items.has(job.id)) items.get(job.id).replaceWith(item);
    else list.prepend(item);
    items.set(job.id, item);
    empty.hidden = true;
  };
  panel.replaceChildren(list, empty);
  const read = async () => {
    const { jobs } = await graphql(JOBS);
    for (const job of [...jobs.nodes].reverse()) show(job);
  };
  const report = (error) => notify(error.message);
  stop = connection.subscribe(EVENTS, {
    onData: ({ jobEvents }) => show(jobEvents),
    onState: (isConnected) => isConnected && read().catch(report), // What changed meanwhile sent no event.
  });
  await read();
}

export function leaveJobs() {
  stop();
  stop = () => {};
}

function jobItem(job, show) {
  const { kind, state, modality, fraction, error, failures, studies, results, url } = job;
  const about = results.length ? results : studies;
  const act = (query, name) => async () => {
    try {
      show((await graphql(query, { id: job.id }))[name]);
    } catch (reason) {
      notify(reason.message);
    }
  };
  const isRunning = RUNS.has(state);
  return el(
    "li",
    { class: `job ${state.toLowerCase()}`, "data-id": job.id },
    el(
      "div",
      { class: "job-head" },
      el("b", {}, [KINDS[kind] ?? kind, modality?.name].filter(Boolean).join(" ")),
      el("span", { class: "state" }, STATES[state] ?? state),
      el("span", { class: "detail" }, [amounts(job), ago(job.createdAt, serverNow()), job.createdBy].filter(Boolean).join(" · ")),
      isRunning && state !== "CANCELLING" ? el("button", { type: "button", onclick: act(CANCEL, "cancelJob") }, "Cancel") : null,
      CAN_RETRY.has(state) ? el("button", { type: "button", onclick: act(RETRY, "retryJob") }, "Try again") : null,
      url ? el("a", { class: "button", href: url, download: "" }, "Download") : null,
    ),
    isRunning ? el("progress", { max: "1", value: fraction, "aria-label": "Progress" }) : null,
    el("p", {}, ...about.flatMap((study, i) => [i ? ", " : "", studyLink(study)])),
    error ? el("p", { class: "problem" }, error.message) : null,
    failures.length ? el("ul", { class: "problems" }, ...failures.slice(0, MOST_FAILURES).map(failureItem)) : null,
  );
}

function amounts({ total, completed, failed, warnings }) {
  const parts = [total === null ? completed && count(completed, "object") : `${completed} of ${count(total, "object")}`];
  if (failed) parts.push(`${failed} failed`);
  if (warnings) parts.push(count(warnings, "warning"));
  return parts.filter(Boolean).join(", ");
}

const failureItem = ({ sopInstanceUID, error }) => el("li", {}, sopInstanceUID ? el("b", {}, `${sopInstanceUID}: `) : null, error.message);

const studyLink = (study) =>
  el("a", { href: hashOf({ study: study.id }) }, [patientName(study), study.studyDescription, study.studyDate].filter(Boolean).join(" · "));

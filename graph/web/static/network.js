// The DICOM network: other archives, jobs, planned examinations. Each tab is a module of its own.
import { graphql } from "./api.js";
import { byId, el } from "./dom.js";
import { showExaminations } from "./examinations.js";
import { leaveJobs, showJobs } from "./jobs.js";
import { hashOf } from "./place.js";
import { leaveRemote, showRemote } from "./remote.js";

const CALLER = `query NetworkPage {
  viewer { role canUpload }
  server { dicom { aeTitle port isWorklistServed useTls } }
}`;

// `isAllowed` of the caller: searching other archives and planning need the role uploader.
const TABS = {
  remote: { title: "Remote", show: showRemote, leave: leaveRemote, isAllowed: ({ canUpload }) => canUpload },
  jobs: { title: "Jobs", show: showJobs, leave: leaveJobs, isAllowed: () => true },
  worklist: { title: "Worklist", show: showExaminations, leave: () => {}, isAllowed: () => true },
};

let shown = null; // The name of the tab.

/** Show a tab; one that the caller may not use is replaced by the jobs. */
export async function showNetwork({ tab }) {
  const mine = (shown = tab in TABS ? tab : "jobs");
  const panel = byId("network");
  document.title = "Network";
  try {
    const { viewer, server } = await graphql(CALLER);
    if (shown !== mine) return;
    const name = TABS[mine].isAllowed(viewer) ? mine : "jobs";
    const allowed = Object.entries(TABS).filter(([, { isAllowed }]) => isAllowed(viewer));
    byId("tabs").replaceChildren(...allowed.map(([key, { title }]) =>
      el("a", { href: hashOf({ tab: key }), "aria-current": key === name ? "page" : null }, title)));
    const { dicom } = server;
    byId("listener").textContent = dicom ? `This server: ${listenerOf(dicom).join(", ")}` : "";
    leaveTabs();
    await TABS[name].show(panel, viewer);
  } catch (error) {
    if (shown === mine) panel.replaceChildren(el("p", { class: "empty problem" }, error.message));
  }
}

/** What the other side must enter to reach this server. */
const listenerOf = ({ aeTitle, port, isWorklistServed, useTls }) =>
  [`AE title ${aeTitle}`, port ? `port ${port}` : "no DICOM port", port && useTls && "TLS", isWorklistServed && "worklist"].filter(Boolean);

/** Stop what the tabs follow. */
export function leaveNetwork() {
  shown = null;
  leaveTabs();
  byId("network").replaceChildren();
}

function leaveTabs() {
  for (const { leave } of Object.values(TABS)) leave();
}

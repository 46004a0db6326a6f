// The study browser: one page, two views. Start reading here.
//
//   place.js     the address behind "#": what to show
//   worklist.js  the list: filters.js, rows.js, selection.js (several studies: export, send)
//   study.js     the study: strip.js (series, earlier studies), layout.js (viewports side by side),
//                header.js (removal.js), toolbar.js (keys.js, menus.js), tags.js (DICOM header)
//   viewport.js  one picture: view.js (how it lies), gestures.js, measurements.js, corners.js,
//                windows.js, instances.js (what the stack consists of), documents.js (reports, PDFs)
//   network.js   the DICOM network: remote.js (other archives), modalities.js (which ones), jobs.js,
//                examinations.js (modality worklist), sending.js (send and anonymise studies)
//   upload.js    dropping files: dropped.js
//   share.js     links of a study; the page of a link is this page, see session.js
//   api.js       the GraphQL endpoint, which is all that this page uses; session.js (token)
//   client/      what other front ends can use too, published as clients/js: connection, pictures,
//                stacks, cine, uploads, geometry
import { graphql } from "./api.js";
import { byId, el } from "./dom.js";
import { leaveNetwork, showNetwork } from "./network.js";
import { flush, readPlace } from "./place.js";
import { startSelection } from "./selection.js";
import { isShare, showState, signOut } from "./session.js";
import { startShare } from "./share.js";
import { leaveStudy, showStudy, startStudy } from "./study.js";
import { startUpload } from "./upload.js";
import { showWorklist, startWorklist } from "./worklist.js";

const ABOUT = "query About { server { warnings pacsIntegrationEnabled } viewer { canUpload canDownload } }";
const THEME = "orthanc-graphql.theme";
let scrolled = 0; // How far down the list was when a study was opened.

function show() {
  const place = readPlace();
  const isStudy = Boolean(place.study || place.StudyInstanceUID || place.AccessionNumber);
  const wasStudy = !byId("study-view").hidden;
  const isNetwork = Boolean(place.tab) && !isShare;
  byId("worklist-view").hidden = isStudy || isNetwork;
  byId("study-view").hidden = !isStudy;
  if (!isNetwork && !byId("network-view").hidden) leaveNetwork();
  byId("network-view").hidden = !isNetwork;
  if (isStudy) {
    showStudy(place);
    if (!wasStudy) document.querySelector(".stage").focus({ preventScroll: true });
    return;
  }
  if (wasStudy) leaveStudy();
  if (isNetwork) return showNetwork(place);
  sessionStorage.setItem("worklist", location.hash || "#");
  showWorklist(place);
  if (wasStudy) scrollTo(0, scrolled);
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function switchTheme() {
  const isDark = getComputedStyle(document.documentElement).colorScheme === "dark";
  setTheme(isDark ? "light" : "dark");
  localStorage.setItem(THEME, document.documentElement.dataset.theme);
}

/** Show a share as what it is: a page to look at. */
async function showShare() {
  for (const element of document.querySelectorAll(".not-shared")) element.remove();
  const { viewer } = await graphql("{ viewer { expiresAt } }");
  byId("shared").textContent = `Shared with you until ${viewer.expiresAt.slice(0, 10)}`;
  byId("shared").hidden = false;
}

async function showWarnings() {
  const { server, viewer } = await graphql(ABOUT).catch(() => ({ server: null, viewer: null }));
  if (viewer && !isShare) {
    byId("choose-files").hidden = !viewer.canUpload;
    startSelection(viewer);
  }
  const off = server?.pacsIntegrationEnabled === false ? ["PACS integration is off: there are no pictures and no uploads."] : [];
  byId("warnings").replaceChildren(...[...(server?.warnings ?? []), ...off].map((text) => el("li", {}, text)));
}

setTheme(localStorage.getItem(THEME));
showState();
for (const button of document.querySelectorAll(".theme")) button.addEventListener("click", switchTheme);
for (const button of document.querySelectorAll(".sign-out")) button.addEventListener("click", signOut);
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  const view = ["study", "network", "worklist"].find((name) => !byId(`${name}-view`).hidden);
  byId(view).focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea, select") || byId("worklist-view").hidden) return;
  event.preventDefault();
  byId("search").focus();
});
// Update the address and the scroll position of the list before the browser follows a link.
document.addEventListener("click", () => {
  flush();
  if (byId("study-view").hidden) scrolled = scrollY;
}, { capture: true });
history.scrollRestoration = "manual"; // The list remembers its own place.
addEventListener("hashchange", show);

startWorklist();
startStudy();
startShare();
if (isShare) showShare().catch(() => {}); // What is wrong shows in the list as well.
else startUpload();
show();
showWarnings();

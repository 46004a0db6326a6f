// Shares of a study: make a link, copy it, see who uses it, end it.
import { graphql, serverNow } from "./api.js";
import { byId, el, notify } from "./dom.js";
import { ago, count } from "./format.js";

const DAY = 86_400_000; // Milliseconds.

const SHARES = `query Shares {
  shares(first: 100) { nodes { id name expiresAt lastUsedAt useCount mayDownload studies { id } } }
}`;
const CREATE = `mutation CreateShare($input: CreateShareInput!) {
  createShare(input: $input) { url viewerUrl qrCode }
}`;
const REVOKE = "mutation RevokeShare($id: ID!) { revokeShare(id: $id) { id } }";

let study = null; // The id of the study whose dialog is open.

export function startShare() {
  byId("share-form").addEventListener("submit", (event) => {
    event.preventDefault();
    create().catch((error) => notify(error.message));
  });
  byId("share-copy").addEventListener("click", copy);
}

/** Open the dialog for a study. */
export function openShare(id) {
  study = id;
  byId("share-made").hidden = true;
  byId("share-qr").removeAttribute("src");
  byId("share-form").reset();
  byId("share-list").replaceChildren();
  byId("share").showModal();
  list().catch((error) => notify(error.message));
}

async function create() {
  const days = Number(byId("share-days").value);
  const input = {
    name: byId("share-name").value,
    studyIds: [study],
    expiresAt: new Date(serverNow() + days * DAY).toISOString(),
    mayDownload: byId("share-download").checked,
  };
  const { createShare } = await graphql(CREATE, { input });
  byId("share-url").value = createShare.url;
  byId("share-viewer").hidden = !createShare.viewerUrl;
  byId("share-viewer").href = createShare.viewerUrl ?? "#";
  byId("share-qr").src = `data:image/svg+xml,${encodeURIComponent(createShare.qrCode)}`;
  byId("share-made").hidden = false;
  byId("share-url").select();
  await list();
}

async function copy() {
  const field = byId("share-url");
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    byId("share-copied").textContent = "Copied";
  } catch {
    byId("share-copied").textContent = "Press Ctrl+C"; // Without HTTPS there is no clipboard.
  }
}

async function list() {
  const mine = study;
  const { shares } = await graphql(SHARES);
  if (study !== mine) return;
  const own = shares.nodes.filter((share) => share.studies.some(({ id }) => id === study));
  byId("share-list").replaceChildren(...own.map(line));
  byId("share-existing").hidden = own.length === 0;
}

function line(share) {
  const used = share.lastUsedAt ? `last used ${ago(share.lastUsedAt, serverNow())}` : "never used";
  const details = [`until ${share.expiresAt.slice(0, 10)}`, used, share.mayDownload && "with downloads"];
  const revoke = async () => {
    await graphql(REVOKE, { id: share.id });
    await list();
    (byId("share-list").querySelector("button") ?? byId("share-name")).focus(); // The button in use is gone.
  };
  const button = el("button", {
    type: "button",
    "aria-label": `Revoke ${share.name}`,
    onclick: () => revoke().catch((error) => notify(error.message)),
  }, "Revoke");
  const text = el("span", {}, el("b", {}, share.name), " ", el("span", { class: "hint" }, details.filter(Boolean).join(" · ")));
  return el("li", { title: `Used in ${count(share.useCount, "minute")}` }, text, button);
}

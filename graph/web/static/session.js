// The token: requested when the server requires one, and kept in this tab only.
import { byId } from "./dom.js";

const KEY = "orthanc-graphql.token"; // GraphiQL's page uses it too.
let asking = null;

// The page of a share, /s/TOKEN: its address is the credential, and no other one is used there.
const shared = /\/s\/(ogqs_[\w-]{43})$/.exec(location.pathname)?.[1] ?? null;

/** Whether this page shows a share. */
export const isShare = shared !== null;

export const token = () => shared ?? sessionStorage.getItem(KEY);

/** The header that carries the token, {} without one. */
export const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/**
 * Ask for a token. Requests that need one at the same time share one dialog.
 * @param refused  the token that the server refused, or null. If another token was entered since, no
 *                 dialog appears: a late answer does not concern the new token.
 */
export async function askForToken(refused) {
  if (isShare) {
    if (!byId("ended").open) byId("ended").showModal();
    return new Promise(() => {}); // Nothing on this page can be answered any more.
  }
  if (token() !== refused) return undefined;
  asking ??= openDialog().finally(() => (asking = null));
  return asking;
}

export function signOut() {
  sessionStorage.removeItem(KEY);
  location.reload();
}

function openDialog() {
  const dialog = byId("sign-in");
  const field = byId("sign-in-token");
  if (token()) byId("sign-in-reason").textContent = "The server does not accept this token. Enter another one.";
  field.value = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, field.value.trim());
      showState();
      dispatchEvent(new Event("signed-in"));
      done();
    }, { once: true });
  });
}

/** Show "Sign out" while a token is in use. */
export function showState() {
  for (const button of document.querySelectorAll(".sign-out")) button.hidden = isShare || !token();
}

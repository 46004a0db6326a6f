// The view as a fragment of the address (behind "#"): a link opens the same picture, and neither IDs
// nor search terms appear in the log of a server or proxy.

const REPLACE_PAUSE = 250; // Milliseconds: browsers refuse more than about 7 changes a second.
let timer;
let waiting = null;

/** The place as an object of the API's `id`s: {study, series, instance, frame, window, zoom, tags} or {q, modality, from ...}. */
export function readPlace() {
  clearTimeout(timer);
  waiting = null;
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** The address of a place; empty values are omitted. */
export function hashOf(place) {
  const given = Object.entries(place).filter(([, value]) => value !== "" && value != null);
  return `#${new URLSearchParams(given)}`;
}

/** Replace the place in the address without a new entry in the history. */
export function notePlace(place) {
  waiting = hashOf(place);
  clearTimeout(timer);
  timer = setTimeout(flush, REPLACE_PAUSE);
}

export function flush() {
  clearTimeout(timer);
  if (waiting !== null && waiting !== location.hash) history.replaceState(null, "", waiting);
  waiting = null;
}

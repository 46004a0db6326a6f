// Builds elements of the page. Data becomes text or an attribute, never HTML.

export const byId = (id) => document.getElementById(id);

/**
 * Create an element. Attributes that start with "on" are listeners, true is an empty attribute,
 * false and null are omitted, and so are null children.
 */
export const el = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);

/** Create an element of a drawing, as `el`. */
export const svg = (name, attributes, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

function filled(element, attributes = {}, children = []) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const NOTICE_TIME = 8_000; // Milliseconds: long enough to read two sentences.

/** Show a message for a few seconds, or until another place is shown. */
export function notify(sentence) {
  const notice = el("p", { class: "toast", role: "alert" }, sentence);
  document.body.append(notice);
  const remove = () => notice.remove();
  setTimeout(remove, NOTICE_TIME);
  addEventListener("hashchange", remove, { once: true });
}

/** Debounce: run `action` after `milliseconds` without another call. */
export function debounce(action, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

// Fields of forms that are made of a table: label, name, and the attributes of the input.
import { byId, el } from "./dom.js";

/** A labelled input, or a select where `options` are given: [value, text]. */
export function field(label, name, { options, selected, ...attributes } = {}) {
  const input = options
    ? el("select", { name, ...attributes }, ...options.map(([value, text]) => el("option", { value, selected: value === selected }, text)))
    : el("input", { name, autocomplete: "off", ...attributes });
  return el("label", {}, el("span", {}, label), input);
}

/** A check box with its label behind it. */
export const check = (label, name, checked = false) => el("label", { class: "check" }, el("input", { type: "checkbox", name, checked }), ` ${label}`);

/** Show a form in the dialog of tasks. */
export function openTask(title, content) {
  byId("task-title").textContent = title;
  byId("task-body").replaceChildren(content);
  byId("task").showModal();
}

export const closeTask = () => byId("task").close();

/** The values of a form that are not empty. */
function valuesOf(form) {
  const values = Object.fromEntries(new FormData(form));
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
}

/** A form that calls `action` with its values, and says below it why that failed. */
export function form(attributes, fields, button, action) {
  const problem = el("p", { class: "problem", role: "alert" });
  const submit = el("button", { class: "primary" }, button);
  const element = el("form", { class: "fields", ...attributes }, ...fields, submit, problem);
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    submit.disabled = true;
    try {
      await action(valuesOf(element), element);
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      submit.disabled = false;
    }
  });
  return element;
}

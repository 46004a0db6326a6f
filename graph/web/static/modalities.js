// The modalities that this server knows: declared, tried, changed and removed by administrators.
import { graphql, serverNow } from "./api.js";
import { el, notify } from "./dom.js";
import { check, closeTask, field, form, openTask } from "./forms.js";
import { ago } from "./format.js";

const FIELDS = `fragment ModalityFields on Modality {
  name aeTitle address description allows retrieveMethod timeoutSeconds useTls lastEcho { at succeeded error { message } }
}`;
const LIST = `query DeclaredModalities { modalities { ...ModalityFields } } ${FIELDS}`;
const DECLARE = `mutation Declare(
  $name: String!, $aeTitle: String!, $host: String!, $port: Int!, $allows: [DicomService!], $retrieveMethod: RetrieveMethod!,
  $timeoutSeconds: Int!, $description: String, $useTls: Boolean!
) {
  declareModality(
    name: $name, aeTitle: $aeTitle, host: $host, port: $port, allows: $allows, retrieveMethod: $retrieveMethod,
    timeoutSeconds: $timeoutSeconds, description: $description, useTls: $useTls
  ) { name }
}`;
const REMOVE = "mutation Remove($name: String!) { removeModality(name: $name) }";
const ECHO = "mutation TryModality($name: String!) { echoModality(name: $name) { at succeeded milliseconds error { message } } }";

const SERVICES = {
  ECHO: "Echo", FIND: "Query", FIND_WORKLIST: "Query of worklists", GET: "C-GET", MOVE: "C-MOVE", STORE: "Storage", STORAGE_COMMITMENT: "Storage commitment",
};
const METHODS = [["AUTO", "C-GET, else C-MOVE"], ["GET", "C-GET"], ["MOVE", "C-MOVE"]];

/**
 * What administrators see of modalities.
 * @param changed  called after one was declared or removed
 */
export async function modalitiesOf(changed) {
  const { modalities } = await graphql(LIST);
  const heads = ["Name", "AE title", "Address", "Last test", "Actions"].map((name) => el("th", { scope: "col" }, name));
  const rows = modalities.map((modality) => modalityRow(modality, changed));
  const table = el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
  return el(
    "details",
    { id: "modalities-known", open: modalities.length === 0 },
    el("summary", {}, "Modalities"),
    modalities.length ? el("div", { class: "known" }, table) : el("p", {}, "No modality is declared: this server exchanges studies with nobody."),
    el("p", {}, el("button", { type: "button", onclick: () => openForm(null, changed) }, "Declare a modality …")),
  );
}

function modalityRow(modality, changed) {
  const { name, aeTitle, address, description, useTls, lastEcho } = modality;
  const cell = (text, detail) => el("td", {}, text ?? "", detail ? el("span", { class: "detail" }, detail) : null);
  const test = async ({ target }) => {
    target.disabled = true;
    try {
      const { echoModality: echo } = await graphql(ECHO, { name });
      row.replaceWith(modalityRow({ ...modality, lastEcho: echo }, changed));
    } catch (error) {
      notify(error.message);
      target.disabled = false;
    }
  };
  const button = (text, onclick) => el("button", { type: "button", "aria-label": `${text} ${name}`, onclick }, text);
  const row = el(
    "tr",
    {},
    cell(name, description),
    cell(aeTitle),
    cell(address, useTls ? "TLS" : null),
    lastEcho ? cell(lastEcho.succeeded ? "answered" : "failed", [ago(lastEcho.at, serverNow()), lastEcho.error?.message].filter(Boolean).join(": ")) : cell(""),
    el("td", {}, button("Test", test), button("Change", () => openForm(modality, changed)), button("Remove", () => openRemoval(name, changed))),
  );
  return row;
}

function openRemoval(name, changed) {
  const what = el("p", {}, `${name} can't be asked any more, and may do nothing here. Studies that came from it stay.`);
  openTask(`Remove ${name}?`, form({}, [what], "Remove", async () => {
    await graphql(REMOVE, { name });
    closeTask();
    await changed();
  }));
}

function openForm(modality, changed) {
  const { host, port } = hostAndPort(modality?.address);
  const allows = modality?.allows ?? Object.keys(SERVICES);
  const fields = [
    field("Name here", "name", { required: true, maxlength: "64", pattern: "[A-Za-z0-9_\\-]+", title: "Letters, digits, - and _", value: modality?.name, readonly: modality !== null }),
    field("AE title", "aeTitle", { required: true, maxlength: "16", placeholder: "exactly as it is set there", value: modality?.aeTitle }),
    field("Host", "host", { required: true, placeholder: "pacs.example.org", value: host }),
    field("Port", "port", { required: true, type: "number", min: "1", max: "65535", placeholder: "104", value: port }),
    field("Description", "description", { maxlength: "256", value: modality?.description }),
    field("Retrieve by", "retrieveMethod", { options: METHODS, selected: modality?.retrieveMethod }),
    field("Longest silence, seconds", "timeoutSeconds", { required: true, type: "number", min: "1", max: "600", value: modality?.timeoutSeconds ?? "30" }),
    check("Encrypt (TLS)", "useTls", modality?.useTls),
    el("fieldset", { class: "checks" }, el("legend", {}, "It may be asked for, and may do here"), ...Object.entries(SERVICES).map(([service, text]) => check(text, service, allows.includes(service)))),
  ];
  openTask(modality ? `Change ${modality.name}` : "Declare a modality", form({}, fields, modality ? "Save" : "Declare", async (values) => {
    await graphql(DECLARE, {
      name: values.name,
      aeTitle: values.aeTitle,
      host: values.host,
      port: Number(values.port),
      description: values.description ?? null,
      retrieveMethod: values.retrieveMethod,
      timeoutSeconds: Number(values.timeoutSeconds),
      useTls: values.useTls === "on",
      allows: Object.keys(SERVICES).filter((service) => values[service] === "on"),
    });
    closeTask();
    await changed();
  }));
}

/** The parts of "host:port"; an IPv6 address is in brackets. */
function hostAndPort(address) {
  const found = /^\[?(.*?)\]?:(\d+)$/.exec(address ?? "");
  return { host: found?.[1] ?? null, port: found?.[2] ?? null };
}

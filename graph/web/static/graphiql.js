// GraphiQL on this server: example queries, a token for every request, subscriptions.
// A classic script: React and GraphiQL are classic scripts and come before it.
"use strict";

const ENDPOINT = new URL("graphql", document.baseURI).href;
const TOKEN_KEY = "orthanc-graphql.token"; // The study browser's too: one sign-in for both.

const EXAMPLES = [
  `# The newest studies, with a picture of each.
# Ctrl-Enter runs the query. Open a url in a new tab: it needs no header and no cookie.
query NewestStudies {
  studies(first: 5) {
    totalCount
    nodes {
      studyInstanceUID
      studyDate
      studyDescription
      modalitiesInStudy
      patient { patientID patientDisplayName }
      thumbnail { url(maxSize: 256) urlExpiresAt }
    }
    pageInfo { hasNextPage endCursor }
  }
}
`,
  `# Search: every word in patient name, patient ID, accession number or description.
query Search {
  studies(
    filter: { text: "thorax", studyDate: { from: "1990-01-01" } }
    orderBy: { field: PATIENT_NAME, direction: ASC }
  ) {
    totalCount
    nodes { studyDate studyDescription patient { patientDisplayName } }
  }
}
`,
  `# A whole tree. Replace the UID below (variables) by one of the first tab's answer.
query StudyTree($uid: String!) {
  study(studyInstanceUID: $uid) {
    studyDescription
    archiveUrl
    series {
      seriesNumber
      modality
      seriesDescription
      instances(first: 20) {
        sopInstanceUID
        numberOfFrames
        notRenderableReason
        frames(first: 5) {
          frameNumber
          url
          lung: url(windowCenter: -600, windowWidth: 1500)
        }
      }
    }
  }
}
`,
  `# Runs until it is stopped: upload something and watch.
subscription Watch {
  studyEvents {
    kind
    studyInstanceUID
    study { studyDescription numberOfInstances }
  }
}
`,
  `# What runs here, and what its administrator should know.
query Server {
  server {
    version orthancVersion mongodbVersion warnings
    numberOfPatients numberOfStudies numberOfInstances
  }
}
`,
];

const VARIABLES = { StudyTree: JSON.stringify({ uid: "1.2.3" }, null, 2) };

const bearer = (token) => ({ Authorization: `Bearer ${token}` });
const savedToken = () => sessionStorage.getItem(TOKEN_KEY) ?? "";

// Open one socket for each operation: a socket keeps the token that it was opened with.
function fetcher(operation, options) {
  const token = savedToken();
  return GraphiQL.createFetcher({
    url: ENDPOINT,
    subscriptionUrl: ENDPOINT.replace(/^http/, "ws"),
    headers: { "GraphQL-Preflight": "1", ...(token && bearer(token)) },
    wsConnectionParams: token ? bearer(token) : {},
  })(operation, options);
}

function operationName(query) {
  return /(?:query|subscription|mutation) (\w+)/.exec(query)?.[1];
}

function Page() {
  return React.createElement(GraphiQL, {
    fetcher,
    plugins: [GraphiQLPluginExplorer.explorerPlugin()],
    defaultTabs: EXAMPLES.map((query) => ({ query, variables: VARIABLES[operationName(query)] })),
    defaultEditorToolsVisibility: true,
    inputValueDeprecation: true,
    isHeadersEditorEnabled: true,
    shouldPersistHeaders: false,
  });
}

const form = document.getElementById("credentials");
const field = document.getElementById("token");
const state = document.getElementById("credentials-state");
let root;

// A new element makes GraphiQL query the schema again, with the new token.
function render() {
  root?.unmount();
  root = ReactDOM.createRoot(document.getElementById("graphiql"));
  root.render(React.createElement(Page));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (field.value) sessionStorage.setItem(TOKEN_KEY, field.value.trim());
  else sessionStorage.removeItem(TOKEN_KEY);
  state.textContent = field.value ? "in use" : "none";
  render();
});

field.value = savedToken();
state.textContent = field.value ? "in use" : "";
render();

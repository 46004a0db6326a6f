// The server of this page: its GraphQL endpoint and its pictures.
import { Connection } from "./client/connection.js";
import { PictureLoader } from "./client/loader.js";
import { askForToken, token } from "./session.js";

/** Relative to this file, /static/DIGEST/api.js: the server may stand under any path of a proxy. */
const BASE = new URL("../../", import.meta.url);

export const connection = new Connection({
  endpoint: new URL("graphql", BASE).href,
  token,
  onUnauthenticated: askForToken,
});

/** Execute an operation and return its `data`. Asks for a token where one is needed. */
export const graphql = (query, variables, options) => connection.query(query, variables, options);

/** The server's clock in milliseconds. */
export const serverNow = () => connection.serverNow();

/** All pictures of the page. They come from where the page came from, whatever PUBLIC_URL says. */
export const loader = new PictureLoader(connection, {
  resolve: ({ path }) => new URL(path.slice(path.indexOf("frames/v2/")), BASE).href,
});

addEventListener("signed-in", () => connection.reconnect());

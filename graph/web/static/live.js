// Subscriptions over WebSocket by the protocol graphql-transport-ws, without a library.
import { ENDPOINT } from "./api.js";
import { askForToken, authorization, token } from "./session.js";

const FIRST_RETRY = 1_000;
const LAST_RETRY = 30_000; // Milliseconds; doubled from one to the other.
const NEEDS_TOKEN = new Set(["UNAUTHENTICATED", "FORBIDDEN"]);

/**
 * Follow a subscription until `stop` is called; reconnects automatically.
 * @param onData  called with `data` of each event
 * @param onState called with true when connected, false when not
 * @returns a function that stops
 */
export function subscribe(query, { onData, onState }) {
  let socket;
  let used; // The token of this connection.
  let timer;
  let stopped = false;
  let delay = FIRST_RETRY;
  let connectedAt = Infinity;

  function connect() {
    const url = new URL(ENDPOINT);
    url.protocol = url.protocol.replace("http", "ws");
    socket = new WebSocket(url, "graphql-transport-ws");
    const send = (message) => socket.send(JSON.stringify(message));
    socket.onopen = () => {
      used = token();
      send({ type: "connection_init", payload: authorization() });
    };
    socket.onmessage = (event) => receive(JSON.parse(event.data), send);
    socket.onclose = () => {
      onState(false);
      if (performance.now() - connectedAt > LAST_RETRY) delay = FIRST_RETRY;
      connectedAt = Infinity;
      if (!stopped) timer = setTimeout(connect, delay);
      delay = Math.min(delay * 2, LAST_RETRY);
    };
  }

  function receive(message, send) {
    if (message.type === "connection_ack") {
      send({ id: "1", type: "subscribe", payload: { query } });
      connectedAt = performance.now();
      onState(true);
    } else if (message.type === "ping") send({ type: "pong" });
    else if (message.type === "next" && message.payload.data) onData(message.payload.data);
    else if (message.type === "error") refused(message.payload[0]?.extensions?.code);
    else if (message.type === "complete") socket.close(); // Ended by the server: begin again.
  }

  // The first two codes need another token. After the third, of a slow reader, a new connection helps.
  function refused(code) {
    if (!NEEDS_TOKEN.has(code) || token() !== used) return socket.close();
    stop();
    askForToken(used);
  }

  function stop() {
    stopped = true;
    clearTimeout(timer);
    socket.close();
    onState(false);
  }

  // The server refused the previous token; it may accept this one.
  addEventListener("signed-in", () => {
    clearTimeout(timer);
    stopped = false;
    delay = FIRST_RETRY;
    if (socket.readyState === WebSocket.CLOSED) connect();
    else socket.close();
  });
  connect();
  return stop;
}

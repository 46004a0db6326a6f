// The GraphQL endpoint: queries by fetch, subscriptions by WebSocket (graphql-transport-ws).

/** An error of the server: `code` for programs, `message` for people. */
export class ServerError extends Error {
  /**
   * @param {string} message A sentence for people.
   * @param {string} [code] As in `extensions.code`; "NETWORK" without an answer, "HTTP" without JSON.
   */
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

const FIRST_RETRY = 1_000; // Milliseconds; doubled with each failure up to the last.
const LAST_RETRY = 30_000;
const NEEDS_TOKEN = new Set(["UNAUTHENTICATED", "FORBIDDEN"]);

/**
 * @typedef {object} ConnectionOptions
 * @property {string} endpoint Absolute URL of `/graphql`.
 * @property {() => string | null} [token] The bearer token of now.
 * @property {(refused: string | null) => Promise<void>} [onUnauthenticated] Gets another token; then
 *   the request is repeated. Without it the request fails with the code UNAUTHENTICATED.
 */

/** One server. */
export class Connection {
  #token;
  #onUnauthenticated;
  #clockOffset = 0;
  #subscriptions = new Set();

  /** @param {ConnectionOptions} options */
  constructor({ endpoint, token = () => null, onUnauthenticated }) {
    this.endpoint = endpoint;
    this.#token = token;
    this.#onUnauthenticated = onUnauthenticated;
  }

  /** The header that carries the token, {} without one. @returns {Record<string, string>} */
  get authorization() {
    const token = this.#token();
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  /**
   * The server's clock in milliseconds. Expiry times are the server's; the clock of this machine may be wrong.
   * @returns {number}
   */
  serverNow() {
    return Date.now() + this.#clockOffset;
  }

  /**
   * Execute an operation and return its `data`.
   * @param {string} query
   * @param {Record<string, any>} [variables]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<any>}
   * @throws {ServerError} The first error of the answer.
   */
  async query(query, variables = {}, { signal } = {}) {
    return this.authenticated(async () => {
      const response = await this.#send(JSON.stringify({ query, variables }), signal);
      try {
        return await response.json();
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new ServerError(`The server answered with HTTP status ${response.status}.`, "HTTP");
      }
    });
  }

  /**
   * Return `data` of the answer that `send` gets; gets another token and sends again where one is needed.
   * @param {() => Promise<any>} send
   * @returns {Promise<any>}
   */
  async authenticated(send) {
    for (;;) {
      const used = this.#token();
      const answer = await send();
      const error = answer.errors?.[0];
      if (!error) return answer.data;
      const code = error.extensions?.code;
      if (code !== "UNAUTHENTICATED" || !this.#onUnauthenticated) throw new ServerError(error.message, code);
      await this.#onUnauthenticated(used);
    }
  }

  async #send(body, signal) {
    const headers = { "Content-Type": "application/json", ...this.authorization };
    try {
      const response = await fetch(this.endpoint, { method: "POST", headers, body, signal });
      const date = Date.parse(response.headers.get("date") ?? "");
      if (date) this.#clockOffset = date - Date.now();
      return response;
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ServerError("The server does not answer. Is it running?", "NETWORK");
    }
  }

  /**
   * Follow a subscription; it reconnects by itself.
   * @param {string} query
   * @param {{variables?: Record<string, any> | (() => Record<string, any>), onData: (data: any) => void,
   *   onState?: (isConnected: boolean) => void}} listeners What came while `onState` said false sent no event.
   *   A function for `variables` is called at each connection: `studyEvents(since:)` then tells what was missed.
   * @returns {() => void} Ends the subscription.
   */
  subscribe(query, listeners) {
    const needsToken = async (used) => {
      if (!this.#onUnauthenticated) return false;
      await this.#onUnauthenticated(used);
      return true;
    };
    const hello = () => ({ used: this.#token(), payload: this.authorization, isCurrent: (used) => this.#token() === used });
    const subscription = new Subscription(this.endpoint, query, listeners, hello, needsToken);
    this.#subscriptions.add(subscription);
    return () => {
      this.#subscriptions.delete(subscription);
      subscription.stop();
    };
  }

  /** Connect all subscriptions anew, because there is another token. */
  reconnect() {
    for (const subscription of this.#subscriptions) subscription.restart();
  }
}

class Subscription {
  /** @type {WebSocket} */
  // @ts-ignore  The constructor connects.
  #socket;
  #timer;
  #isStopped = false;
  #delay = FIRST_RETRY;
  #connectedAt = Infinity;
  #used = null; // The token of this connection.

  /**
   * @param {string} endpoint @param {string} query
   * @param {{variables?: Record<string, any> | (() => Record<string, any>), onData: (data: any) => void,
   *   onState?: (isConnected: boolean) => void}} listeners
   * @param {() => any} hello @param {(used: any) => Promise<boolean>} needsToken
   */
  constructor(endpoint, query, { variables = {}, onData, onState = (_) => {} }, hello, needsToken) {
    this.url = new URL(endpoint);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.query = query;
    this.variables = variables;
    this.onData = onData;
    this.onState = onState;
    this.hello = hello;
    this.needsToken = needsToken;
    this.#connect();
  }

  stop() {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    this.#socket.close();
    this.onState(false);
  }

  restart() {
    clearTimeout(this.#timer);
    this.#isStopped = false;
    this.#delay = FIRST_RETRY;
    if (this.#socket.readyState === WebSocket.CLOSED) this.#connect();
    else this.#socket.close();
  }

  #connect() {
    const socket = (this.#socket = new WebSocket(this.url, "graphql-transport-ws"));
    socket.onopen = () => {
      const { used, payload } = this.hello();
      this.#used = used;
      this.#say({ type: "connection_init", payload });
    };
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = () => {
      if (socket !== this.#socket) return;
      this.onState(false);
      if (performance.now() - this.#connectedAt > LAST_RETRY) this.#delay = FIRST_RETRY;
      this.#connectedAt = Infinity;
      if (!this.#isStopped) this.#timer = setTimeout(() => this.#connect(), this.#delay);
      this.#delay = Math.min(this.#delay * 2, LAST_RETRY);
    };
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #receive({ type, payload }) {
    if (this.#isStopped) return;
    if (type === "connection_ack") {
      const variables = typeof this.variables === "function" ? this.variables() : this.variables;
      this.#say({ id: "1", type: "subscribe", payload: { query: this.query, variables } });
      this.#connectedAt = performance.now();
      this.onState(true);
    } else if (type === "ping") this.#say({ type: "pong" });
    else if (type === "next" && payload.data) this.onData(payload.data);
    else if (type === "error") this.#refused(payload[0]?.extensions?.code);
    else if (type === "complete") this.#socket.close(); // Ended by the server: begin again.
  }

  // The first two codes need another token. After the third, of a slow reader, a new connection helps.
  async #refused(code) {
    const isToken = NEEDS_TOKEN.has(code) && this.hello().isCurrent(this.#used);
    if (!isToken) return this.#socket.close();
    this.stop();
    if (await this.needsToken(this.#used)) this.restart();
  }
}

// React hooks on the package's controllers.
import { createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState } from "react";
import { variantOf } from "./addresses.js";
import { CineController } from "./cine.js";
import { Connection } from "./connection.js";
import { PictureLoader } from "./loader.js";
import { StackController } from "./stack.js";
import { uploadAll } from "./upload.js";

/**
 * @typedef {import("./addresses.js").FrameRef} FrameRef
 * @typedef {import("./addresses.js").Rendering} Rendering
 * @typedef {import("./upload.js").NamedFile} NamedFile
 * @typedef {import("./upload.js").UploadProgress} UploadProgress
 * @typedef {import("./upload.js").UploadResult} UploadResult
 */

const Context = createContext(/** @type {any} */ (null));

/**
 * Gives a server to the hooks below it.
 * @param {import("./connection.js").ConnectionOptions & {children?: any}} properties `token` and `onUnauthenticated`
 *   may change; another `endpoint` is another server.
 */
export function OrthancProvider({ endpoint, token, onUnauthenticated, children }) {
  const latest = useRef({ token, onUnauthenticated });
  latest.current = { token, onUnauthenticated };
  const mayAsk = onUnauthenticated !== undefined;
  const client = useMemo(() => {
    const connection = new Connection({
      endpoint,
      token: () => latest.current.token?.() ?? null,
      onUnauthenticated: mayAsk ? (refused) => latest.current.onUnauthenticated?.(refused) ?? Promise.resolve() : undefined,
    });
    return { connection, loader: new PictureLoader(connection) };
  }, [endpoint, mayAsk]);
  useEffect(() => () => client.loader.drop(), [client]);
  return createElement(Context.Provider, { value: client }, children);
}

/** The server. @returns {{connection: Connection, loader: PictureLoader}} */
export function useOrthanc() {
  const client = useContext(Context);
  if (!client) throw new Error("There is no OrthancProvider above this component.");
  return client;
}

/**
 * The answer of a query.
 * @param {string} query
 * @param {Record<string, any>} [variables]
 * @returns {{data: any, error: Error | null, isLoading: boolean, reload: () => void}} `data` of before stays while
 *   the query is repeated.
 */
export function useQuery(query, variables = {}) {
  const { connection } = useOrthanc();
  const [state, setState] = useState({ data: /** @type {any} */ (null), error: /** @type {Error | null} */ (null), isLoading: true });
  const [round, setRound] = useState(0);
  const key = JSON.stringify(variables);
  useEffect(() => {
    const cancel = new AbortController();
    setState((before) => ({ ...before, isLoading: true }));
    connection
      .query(query, JSON.parse(key), { signal: cancel.signal })
      .then((data) => setState({ data, error: null, isLoading: false }))
      .catch((error) => cancel.signal.aborted || setState((before) => ({ ...before, error, isLoading: false })));
    return () => cancel.abort();
  }, [connection, query, key, round]);
  const reload = useCallback(() => setRound((before) => before + 1), []);
  return { ...state, reload };
}

/**
 * Follow a subscription while the component is mounted.
 * @param {string} query
 * @param {(data: any) => void} onData
 * @param {Record<string, any>} [variables]
 * @returns {boolean} Whether it is connected; after a gap, ask for what may have changed.
 */
export function useSubscription(query, onData, variables = {}) {
  const { connection } = useOrthanc();
  const [isConnected, setConnected] = useState(false);
  const latest = useRef(onData);
  latest.current = onData;
  const key = JSON.stringify(variables);
  useEffect(
    () =>
      connection.subscribe(query, {
        variables: JSON.parse(key),
        onData: (data) => latest.current(data),
        onState: setConnected,
      }),
    [connection, query, key],
  );
  return isConnected;
}

/**
 * One frame as `src` of an `<img>`. It stays the same after the signed URL has ended.
 * @param {FrameRef | null} ref
 * @param {Rendering} [rendering]
 * @returns {{src: string | undefined, error: Error | null}} `src` of before stays until the next picture is there.
 */
export function useFrame(ref, rendering = {}) {
  const { loader } = useOrthanc();
  const [state, setState] = useState({ src: /** @type {string | undefined} */ (undefined), error: /** @type {Error | null} */ (null) });
  const variant = variantOf(rendering);
  const latest = useRef(rendering);
  latest.current = rendering;
  const keep = useKept(loader);
  const { instanceId, index } = ref ?? {};
  useEffect(() => {
    if (instanceId === undefined || index === undefined) return undefined;
    const owner = {};
    loader
      .load({ instanceId, index }, latest.current, { owner, onWait: (error) => setState((before) => ({ ...before, error })) })
      .then((picture) => keep(picture, () => setState({ src: picture.src, error: null })))
      .catch((error) => error.name === "AbortError" || setState((before) => ({ ...before, error })));
    return () => loader.keepOnly(owner);
  }, [loader, instanceId, index, variant, keep]);
  return state;
}

/**
 * A stack of frames at one position, with cine.
 * @param {(FrameRef | null)[]} frames null where there is nothing to show. Another array is another stack.
 * @param {{position?: number, rendering?: Rendering}} [begin]
 */
export function useStack(frames, { position = 0, rendering = {} } = {}) {
  const { loader } = useOrthanc();
  const { stack, cine } = useMemo(() => {
    const made = new StackController(loader);
    return { stack: made, cine: new CineController(made) };
  }, [loader]);
  const [state, setState] = useState(/** @type {{src?: string, shown: number | null, isSmall: boolean, isLossy: boolean, error: Error | null}} */ ({
    shown: null, isSmall: false, isLossy: false, error: null,
  }));
  const [, refresh] = useState(0);
  const keep = useKept(loader);
  useEffect(() => {
    const follow = () => refresh((before) => before + 1);
    const show = (/** @type {any} */ { detail }) => {
      const { picture, position: shown, isSmall, isLossy } = detail;
      keep(picture, () => setState({ src: picture.src, shown, isSmall, isLossy, error: null }));
    };
    const fail = (/** @type {any} */ { detail }) => setState((before) => ({ ...before, error: detail.error }));
    stack.addEventListener("move", follow);
    stack.addEventListener("picture", show);
    stack.addEventListener("fail", fail);
    cine.addEventListener("change", follow);
    cine.addEventListener("speed", follow);
    stack.open(frames, position, rendering);
    return () => {
      cine.stop();
      stack.close();
      stack.removeEventListener("move", follow);
      stack.removeEventListener("picture", show);
      stack.removeEventListener("fail", fail);
      cine.removeEventListener("change", follow);
      cine.removeEventListener("speed", follow);
    };
  }, [stack, cine, frames, keep]);
  return {
    ...state,
    /** The wanted position, 0-based; `shown` is the one that is seen. */
    position: stack.position,
    length: frames.length,
    goTo: (/** @type {number} */ target) => stack.goTo(target),
    step: (/** @type {number} */ by) => stack.step(by),
    setRendering: (/** @type {Rendering} */ next, /** @type {{isDragging?: boolean}} */ options = {}) => stack.setRendering(next, options),
    isPlaying: cine.isPlaying,
    speed: cine.speed,
    setSpeed: (/** @type {number} */ speed) => void (cine.speed = speed),
    play: () => void cine.play(),
    stop: () => cine.stop(),
  };
}

/** Uploads with progress. */
export function useUpload() {
  const { connection } = useOrthanc();
  const cancel = useRef(/** @type {AbortController | null} */ (null));
  const [state, setState] = useState(/** @type {{isRunning: boolean, progress: UploadProgress | null, results: UploadResult[]}} */ ({
    isRunning: false, progress: null, results: [],
  }));
  const upload = useCallback(
    async (/** @type {Iterable<File | NamedFile>} */ files) => {
      cancel.current?.abort();
      const mine = (cancel.current = new AbortController());
      const named = [...files].map((one) => ("file" in one ? one : { file: one, name: one.name }));
      setState({ isRunning: true, progress: null, results: [] });
      try {
        await uploadAll(connection, named, {
          signal: mine.signal,
          onProgress: (progress) => setState((before) => ({ ...before, progress })),
          onResults: (results) => setState((before) => ({ ...before, results: [...before.results, ...results] })),
        });
      } catch (error) {
        if (error.name !== "AbortError") throw error;
      } finally {
        if (cancel.current === mine) setState((before) => ({ ...before, isRunning: false }));
      }
    },
    [connection],
  );
  useEffect(() => () => cancel.current?.abort(), []);
  return { ...state, upload, cancel: () => cancel.current?.abort() };
}

// Shows a picture when it is decoded, so that nothing flickers, and keeps it until the next one is shown. A
// picture that is decoded after a newer one is not shown.
function useKept(loader) {
  const state = useRef({ turn: 0, shown: 0, isGone: false, end: () => {}, image: /** @type {HTMLImageElement | null} */ (null) });
  useEffect(() => {
    state.current.isGone = false; // React's strict mode mounts twice.
    return () => {
      state.current.isGone = true;
      state.current.end();
    };
  }, []);
  return useCallback(async (picture, show) => {
    const kept = state.current;
    const turn = ++kept.turn;
    const end = loader.pin(picture);
    const image = new Image();
    image.src = picture.src;
    await image.decode().catch(() => null); // What is damaged shows as any <img> that is.
    if (kept.isGone || turn < kept.shown) return end();
    const before = kept.end;
    Object.assign(kept, { shown: turn, end, image });
    show();
    before();
  }, [loader]);
}

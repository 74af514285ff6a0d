import { type FromRenderer, replaceWorker } from "./renderer";

/** Milliseconds over which the tabs of all browsers spread their question. */
export const SPREAD = 1_000;
/** What the server answers to a request from a page of another session. */
export const STALE = "stale page";

/**
 * With Dash's own worker: whatever this page asks of it carries the page token, also when it waits there for another socket,
 * which may be somebody else's. And when its socket has gone, the server is asked why.
 */
export function watchWorker(page: string, ask: () => void, stale: () => void): void {
  if (!window.SharedWorker) return;
  replaceWorker((original) => {
    const worker = original();
    const { port } = worker;
    const post = port.postMessage.bind(port) as (said: FromRenderer) => void;
    port.postMessage = (said: FromRenderer) =>
      post(said.type === "callback_request" ? { ...said, payload: { ...said.payload, endId: page } } : said);
    // A listener does not start the port, as `onmessage` would: that stays with Dash.
    port.addEventListener("message", ({ data }) => {
      if (data.payload?.message === STALE) stale();
      if (data.type === "disconnected") setTimeout(ask, Math.random() * SPREAD);
    });
    return worker;
  });
}

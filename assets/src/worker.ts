/** The name that Dash's renderer gives its worker. */
const NAME = "dash-ws-worker";
/** Milliseconds over which the tabs of all browsers spread their question. */
export const SPREAD = 1_000;

/** What the server answers to a request from a page of another session. */
export const STALE = "stale page";

/**
 * Whatever this page asks of Dash's worker carries the page token, also when it waits there for another socket: that may
 * be somebody else's. And learn from the worker that its socket has ended, and ask the server why, once: the worker says
 * it again at each attempt to reconnect that fails. The app's own workers are made as if this were not here.
 */
export function watchWorker(page: string, ask: () => void, stale: () => void): void {
  if (!window.SharedWorker) return;
  let isDown = false;
  window.SharedWorker = new Proxy(window.SharedWorker, {
    construct(target, args, newTarget) {
      const worker: SharedWorker = Reflect.construct(target, args, newTarget);
      if ((args[1]?.name ?? args[1]) === NAME) {
        const { port } = worker;
        const post = port.postMessage.bind(port) as (message: unknown, ...rest: unknown[]) => void;
        port.postMessage = (message: any, ...rest: unknown[]) => {
          const isRequest = message?.type === "callback_request";
          post(isRequest ? { ...message, payload: { ...message.payload, endId: page } } : message, ...rest);
        };
        // A listener does not start the port, as `onmessage` would: that stays with Dash.
        port.addEventListener("message", ({ data }) => {
          const type = data?.type;
          if (type === "callback_response" && data.payload?.message === STALE) stale();
          if (type === "connected" && isDown) {
            isDown = false;
            setTimeout(ask, Math.random() * SPREAD); // as whom the worker has come back is another question
          }
          if (type === "disconnected" && !isDown) {
            isDown = true;
            setTimeout(ask, Math.random() * SPREAD);
          }
        });
      }
      return worker;
    },
  });
  document.addEventListener("visibilitychange", () => {
    if (isDown && !document.hidden) ask();
  });
}

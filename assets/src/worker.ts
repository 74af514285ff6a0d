/** The name that Dash's renderer gives its worker. */
const NAME = "dash-ws-worker";
/** Milliseconds over which the tabs of all browsers spread their question. */
export const SPREAD = 1_000;

/**
 * Learn from Dash's worker that its socket has ended, and ask the server why, once: the worker says it again at each
 * attempt to reconnect that fails. The app's own workers are made as if this were not here.
 */
export function watchWorker(ask: () => void): void {
  if (!window.SharedWorker) return;
  let isDown = false;
  window.SharedWorker = new Proxy(window.SharedWorker, {
    construct(target, args, newTarget) {
      const worker: SharedWorker = Reflect.construct(target, args, newTarget);
      if ((args[1]?.name ?? args[1]) === NAME) {
        // A listener does not start the port, as `onmessage` would: that stays with Dash.
        worker.port.addEventListener("message", ({ data }) => {
          const type = data?.type;
          if (type === "connected") isDown = false;
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

import type { Message } from "./wire";

/** The name that Dash's renderer gives its worker. */
const NAME = "dash-ws-worker";

/** What the renderer says to its worker. */
export interface FromRenderer extends Message {
  readonly type: "connect" | "callback_request" | "get_props_response" | "tab_visible" | "disconnect";
}

/**
 * When Dash's renderer makes its worker, give it what `make` gives. Workers of any other name are the app's own, and are made
 * as if this were not here.
 */
export function replaceWorker(make: (original: () => SharedWorker) => unknown): void {
  // Who makes a `Symbol` with `new` gets a TypeError, too.
  window.SharedWorker = new Proxy(window.SharedWorker ?? Symbol, {
    construct(target, args, newTarget) {
      const original = (): SharedWorker => Reflect.construct(target, args, newTarget);
      return (args[1]?.name ?? args[1]) === NAME ? (make(original) as object) : original();
    },
  });
}

/** What the renderer has in the place of its worker's port: it says something to `hear`, and is told something by `tell`. */
export class Port {
  onmessage: ((event: { data: Message }) => void) | undefined;
  readonly postMessage: (said: FromRenderer) => void;

  constructor(hear: (said: FromRenderer) => void) {
    this.postMessage = hear;
  }

  start(): void {}
  close(): void {}

  tell(data: Message): void {
    this.onmessage?.({ data });
  }
}

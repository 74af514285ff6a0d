import { Bridge, type FromBridge, type FromPage, type Open, PING, UNANSWERED } from "./bridge";

/** Milliseconds in which a worker has to say hello; after that the bridge runs in the page. */
export const HELLO = 4_000;
/** Milliseconds before a bridge that dies again and again is started once more. */
export const AGAIN = 500;

/** What a page hears: what the bridge says, and that the bridge has died without a word. */
export type Heard = FromBridge | { t: "died" };

/** A name that no other page or bridge of the site has; it is no secret. */
export function unique(what: string): string {
  return `dash-quart-ws ${what} ${crypto.getRandomValues(new Uint32Array(4))}`;
}

/** A page's way to the bridge: to the one in the SharedWorker, or, where that does not start, to one in the page. */
export class Link {
  readonly #start: () => SharedWorker;
  readonly #hear: (heard: Heard) => void;
  #port: MessagePort | undefined;
  #ends: AbortController | undefined;
  /** The bridge in the page, if that had to be. */
  #bridge: Bridge | undefined;
  #silence = 0;
  #deaths = 0;
  #again: ReturnType<typeof setTimeout> | undefined;

  /** `start` starts the worker, and throws where that may not be. */
  constructor(start: () => SharedWorker, hear: (heard: Heard) => void) {
    this.#start = start;
    this.#hear = hear;
  }

  /**
   * The page is here.
   *
   * @param fresh it has just been loaded.
   * @param page what it says of itself, whenever it says hello.
   */
  open(fresh: boolean, page: () => Omit<Open, "t" | "lock" | "fresh">): void {
    const { signal } = (this.#ends = new AbortController());
    let isDecided = false;
    const listen = (port: MessagePort): void => {
      const lock = unique("page");
      this.#port = port;
      port.onmessage = ({ data }: MessageEvent<FromBridge>) => {
        this.#silence = 0;
        if (data.t === "ping") this.post({ t: "pong" });
        else if (data.t !== "hello") this.#hear(data);
        else if (!isDecided) {
          isDecided = true;
          this.#watch(data.lock, signal, () => this.open(false, page));
        }
      };
      this.post({ t: "open", lock, fresh, ...page() });
      // Held until the page says goodbye, or dies. Only then may the bridge ask for it: it might get it before the page.
      navigator.locks
        ?.request(lock, { signal }, () => {
          this.post({ t: "held" });
          return new Promise((release) => signal.addEventListener("abort", release));
        })
        .catch(() => {}); // the page is going; or there are no locks, and the bridge asks instead
    };
    // Never after hello: there would be two bridges.
    const stay = (): void => {
      if (isDecided || signal.aborted) return;
      isDecided = true;
      this.post({ t: "bye", cached: true });
      this.#port?.close();
      const { port1, port2 } = new MessageChannel();
      (this.#bridge ??= new Bridge("", undefined)).accept(port1);
      listen(port2);
    };
    setTimeout(stay, HELLO);
    try {
      const worker = this.#start();
      worker.onerror = stay;
      listen(worker.port);
    } catch {
      stay();
    }
  }

  post(said: FromPage): void {
    this.#port?.postMessage(said);
  }

  /** The page goes; `cached`: to the back-forward cache. */
  close(cached: boolean): void {
    clearTimeout(this.#again);
    this.post({ t: "bye", cached });
    this.#end();
  }

  #end(): void {
    this.#ends?.abort();
    this.#port?.close();
    this.#port = undefined;
  }

  /** Notice that the worker has died, with the process of the page that happened to host it: it tells nobody. */
  #watch(lock: string | null, signal: AbortSignal, restart: () => void): void {
    const died = (): void => {
      if (signal.aborted) return;
      this.#end();
      this.#again = setTimeout(restart, this.#deaths++ ? AGAIN : 0);
      this.#hear({ t: "died" });
    };
    if (lock) navigator.locks.request(lock, { signal }, died).catch(() => {});
    else {
      // The bridge asks each page whether it is there; where it does not, it is not.
      const timer = setInterval(() => this.#silence++ > UNANSWERED && died(), PING);
      signal.addEventListener("abort", () => clearInterval(timer));
    }
  }
}

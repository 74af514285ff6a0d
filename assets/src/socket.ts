import { type Meaning, meaningOf, NO_HEARTBEAT, NOT_LOGGED_IN } from "./close";
import { decode, encode, type Message, SUBPROTOCOL, type Welcome } from "./wire";

/** Milliseconds: the first wait is up to `FIRST`, each further one up to twice as long, `LONGEST` at most. */
export const FIRST = 1_000;
export const LONGEST = 30_000;
/** Milliseconds after which a connection was a good one: the next wait is a first one again. */
export const GOOD = 10_000;
/** Milliseconds from the attempt to the server's welcome. */
export const PATIENCE = 15_000;
/** Milliseconds for the answer to a heartbeat when there is reason to doubt the connection. */
export const DOUBT = 5_000;
/** Milliseconds to wait for a page of the next session; and for which a refusal may be due to a cookie on its way. */
export const SWITCH = 2_000;
export const SWITCHING = 5_000;
/** Milliseconds at least, and as much again at most, before coming back to a place that is full. */
export const CROWDED = 15_000;
/** Bytes that may wait in the browser for a slow network; what would come on top goes another way. */
export const BUFFERED = 4 * 1024 * 1024;

export interface Listener {
  welcome(welcome: Welcome): void;
  receive(messages: Message[]): void;
  /** The socket has closed, or could not be opened. Unless it means `over` or `stop`, the next one follows by itself. */
  lost(code: number, reason: string, meaning: Meaning): void;
}

/**
 * One websocket, opened again and again until it is closed here or the server does not want it any more. At any time there
 * is at most one, and at most one timer that would open it.
 */
export class Socket {
  /** Whether the server has said welcome, and messages may be sent. */
  ready = false;

  readonly #url: string;
  readonly #listener: Listener;
  #ws: WebSocket | null = null;
  /** The next attempt, while one is waited for. */
  #next: ReturnType<typeof setTimeout> | undefined;
  /** What the open socket has to do in time. */
  #watch: ReturnType<typeof setTimeout> | undefined;
  #attempts = 0;
  #readyAt = 0;
  #switchedAt = -Infinity;
  #heard = false;
  /** Milliseconds between two heartbeats; 0 for none. */
  #heartbeat = 0;

  constructor(url: string, listener: Listener) {
    this.#url = url;
    this.#listener = listener;
  }

  /** Open it now, if it is neither open nor being opened. */
  connect(): void {
    if (this.#ws) return;
    this.#waitNoMore();
    let ws: WebSocket;
    try {
      ws = new WebSocket(this.#url, SUBPROTOCOL);
    } catch {
      // A Content-Security-Policy forbids it, in browsers that say so at once.
      this.#fail(1006);
      return;
    }
    this.#ws = ws;
    // What a socket says that has been given up already is about nothing any more.
    ws.onmessage = ({ data }) => ws === this.#ws && this.#receive(decode(data));
    ws.onclose = ({ code, reason }) => ws === this.#ws && this.#fail(code, reason);
    this.#watch = setTimeout(() => this.#fail(1006), PATIENCE);
  }

  /** Open it if it was closed here: one that was lost comes back when it is time. */
  rouse(): void {
    if (this.#next === undefined) this.connect();
  }

  /** Close it, and leave it closed. */
  close(): void {
    this.#waitNoMore();
    clearTimeout(this.#watch);
    const ws = this.#ws;
    this.#ws = null;
    this.ready = false;
    ws?.close();
  }

  /**
   * Somebody is looking, or the network is back: do not wait any longer, and do not trust a connection that may be dead.
   *
   * @param isBusy large answers may be on their way: what is asked now is answered after them.
   */
  wake(isBusy: boolean): void {
    if (!this.ready) {
      this.#attempts = 0;
      this.connect();
    } else if (this.#heartbeat && this.#heard) {
      this.#beat(isBusy ? this.#heartbeat : Math.min(DOUBT, this.#heartbeat)); // a question that is open is not put off
    }
  }

  /**
   * Send one encoded message; false when there is nowhere to send it, or too much waits there already. What is short, and
   * what the connection makes no sense without, goes out in any case.
   */
  send(text: string, inAnyCase = false): boolean {
    if (!this.ready || (!inAnyCase && this.#ws!.bufferedAmount > BUFFERED)) return false;
    this.#ws!.send(text);
    return true;
  }

  #receive(messages: Message[]): void {
    if (!this.ready) {
      if (messages[0]?.type !== "welcome") return;
      const welcome: Welcome = messages.shift()!.payload;
      this.ready = true;
      this.#readyAt = performance.now();
      this.#heartbeat = welcome.heartbeat;
      this.#heard = false;
      this.#listener.welcome(welcome);
      if (!this.ready) return; // the welcome was for somebody else
    }
    if (!this.#heard) {
      this.#heard = true;
      clearTimeout(this.#watch);
      // Set here, not when the last one fires: in a hidden page, browsers let timers that follow timers wait for a minute.
      if (this.#heartbeat) this.#watch = setTimeout(() => this.#beat(), this.#heartbeat);
    }
    this.#listener.receive(messages);
  }

  /** Ask whether anybody is there. The answer may come behind a large one to something else. */
  #beat(within = this.#heartbeat): void {
    clearTimeout(this.#watch);
    this.#heard = false;
    const ahead = this.#ws!.bufferedAmount;
    this.send(encode({ type: "heartbeat" }), true);
    this.#watch = setTimeout(() => {
      // What waits ahead of the question may take its time, while it gets on.
      if (this.#ws!.bufferedAmount < ahead) this.#beat();
      else this.#fail(NO_HEARTBEAT, "no heartbeat");
    }, within);
  }

  #fail(code: number, reason = ""): void {
    const now = performance.now();
    if (this.ready && now - this.#readyAt > GOOD) this.#attempts = 0;
    this.close();
    let meaning = meaningOf(code);
    if (meaning === "switched") this.#switchedAt = now;
    // The handshake may have overtaken the response that sets the new cookie.
    if (code === NOT_LOGGED_IN && now - this.#switchedAt < SWITCHING) meaning = "retry";
    if (meaning !== "over" && meaning !== "stop") this.#next = setTimeout(() => this.connect(), this.#wait(meaning));
    this.#listener.lost(code, reason, meaning);
  }

  #waitNoMore(): void {
    clearTimeout(this.#next);
    this.#next = undefined;
  }

  /** Milliseconds until the next attempt: full jitter, so that the browsers of a whole company do not come back at once. */
  #wait(meaning: Meaning): number {
    const wait = Math.random() * Math.min(LONGEST, FIRST * 2 ** this.#attempts);
    this.#attempts++;
    if (meaning === "crowded") return CROWDED * (1 + Math.random());
    return meaning === "switched" ? Math.max(SWITCH, wait) : wait;
  }
}

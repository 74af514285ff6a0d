import type { Meaning } from "./close";
import { type Listener, Socket } from "./socket";
import { encode, type Message, type Welcome } from "./wire";

/** Milliseconds for which the socket outlives its last tab: the next page may be on its way. */
export const GRACE = 2_000;
/** Milliseconds between questions to tabs that hold no lock, and how many may stay without an answer. */
export const PING = 2_000;
export const UNANSWERED = 3;

/** What a page says to the bridge. */
export type FromPage =
  | Open
  /** The page's lock is held from here on: when the bridge gets it, the page has gone. */
  | { t: "held" }
  /** Send this message; `id` is the request's, empty for anything that is none; `isEndless`: it has no answer. */
  | { t: "send"; id: string; text: string; isEndless: boolean }
  /** Somebody sees the page, or nobody does. `wake`: now is a good time for a connection. */
  | { t: "look"; visible: boolean; wake: boolean }
  /** Something waits for a connection. */
  | { t: "rouse" }
  | { t: "pong" }
  /** The page goes; `cached`: to where it may come back from, and where it, and this bridge, may be frozen at once. */
  | { t: "bye"; cached: boolean };

/** A page is here. */
export interface Open {
  t: "open";
  /** Whether this is the page's first word: what it knows of the browser's session is new, too. */
  fresh: boolean;
  /** Name of the Web Lock that it will hold. */
  lock: string;
  renderer: string;
  /** The websocket's URL, and milliseconds after which pages that nobody sees, and where nothing happens, need none; 0: never. */
  url: string;
  inactivity: number;
  /** The page token, and the public id of the session that it names; null for nobody. */
  page: string;
  session: string | null;
  visible: boolean;
}

/** A close code and its reason. */
export interface Why {
  code: number;
  reason: string;
}

/** What the bridge says to a page. */
export type FromBridge =
  /** The bridge runs. `lock` is held while it does; null where there are no locks. */
  | { t: "hello"; lock: string | null }
  /** The page is attached; messages of up to `max` bytes may be sent. */
  | { t: "up"; max: number }
  /** The socket has closed, and comes back. These requests had been sent, and have no answer. */
  | { t: "down"; why: Why; lost: string[] }
  /** There is no socket for this page any more. */
  | { t: "stop"; why: Why; lost: string[] }
  /** The page's session has ended. */
  | { t: "over"; why: Why }
  /** The page belongs to another session than the browser. */
  | { t: "stale" }
  /** This request could not be sent, and was not. */
  | { t: "unsent"; id: string }
  | { t: "message"; message: Message }
  | { t: "ping" };

/** One page, as long as it is there. */
interface Tab extends Open {
  readonly port: MessagePort;
  attached: boolean;
  /** Requests that were sent and have no answer, and whether they are endless. */
  readonly sent: Map<string, boolean>;
  /** Questions in a row that it has not answered. */
  misses: number;
}

function post({ port }: Tab, message: FromBridge): void {
  port.postMessage(message);
}

/**
 * One socket for all tabs of a browser. It runs in a SharedWorker, or in the page where there is none.
 *
 * The socket belongs to the session whose cookie the browser sent with the handshake; the server's `welcome` names it. Only
 * tabs whose pages were made for that very session are attached; what others ask is not sent.
 */
export class Bridge implements Listener {
  readonly #tabs = new Set<Tab>();
  readonly #locks: LockManager | undefined;
  /** Name of the lock that shows that the bridge runs. */
  readonly #lock: Promise<string | null>;
  #socket: Socket | undefined;
  #session: string | null = null;
  #max = 0;
  /** The socket has been closed for good, until another page comes. */
  #stopped = false;
  #activeAt = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #grace: ReturnType<typeof setTimeout> | undefined;

  constructor(name: string, locks: LockManager | undefined) {
    this.#locks = locks;
    this.#lock = new Promise((holds) => {
      const none = (): void => {
        setInterval(() => this.#ping(), PING);
        holds(null);
      };
      const hold = (): Promise<void> => (holds(name), new Promise(() => {})); // for good
      if (locks) locks.request(name, hold).catch(none); // storage may be blocked
      else none();
    });
  }

  /** A page has come; `port` leads to it. */
  accept(port: MessagePort): void {
    let tab: Tab | undefined;
    port.onmessage = ({ data }: MessageEvent<FromPage>) => {
      if (data.t === "open") this.#join((tab = { ...data, port, attached: false, sent: new Map(), misses: 0 }));
      else if (tab) this.#hear(tab, data);
    };
    void this.#lock.then((lock) => port.postMessage({ t: "hello", lock } satisfies FromBridge));
  }

  #hear(tab: Tab, said: Exclude<FromPage, Open>): void {
    tab.misses = 0;
    if (said.t === "bye") return this.#leave(tab, said.cached);
    if (said.t === "pong" && !this.#tabs.has(tab)) {
      // It was frozen, and taken for gone.
      this.#lose(tab, { code: 1001, reason: "frozen" });
      this.#join(tab);
    }
    const socket = this.#socket!;
    if (said.t === "held") {
      this.#locks?.request(tab.lock, () => this.#leave(tab));
    } else if (said.t === "send") {
      this.#activeAt = performance.now();
      if (!tab.attached || !socket.send(said.text, !said.id)) {
        if (said.id) post(tab, { t: "unsent", id: said.id });
      } else if (said.id) tab.sent.set(said.id, said.isEndless);
    } else if (said.t === "look") {
      tab.visible = said.visible;
      this.#activeAt = performance.now();
      this.#rest();
      if (said.wake && !this.#stopped) socket.wake(this.#isBusy);
    } else if (said.t === "rouse" && !this.#stopped) socket.rouse();
  }

  // ---------------------------------------------------------------------------------------- who is here

  #join(tab: Tab): void {
    // A page that took this bridge for dead comes a second time.
    for (const other of this.#tabs) if (other.renderer === tab.renderer) this.#leave(other);
    this.#tabs.add(tab);
    this.#activeAt = performance.now();
    this.#stopped = false;
    clearTimeout(this.#grace);
    this.#socket ??= new Socket(tab.url, this);
    if (this.#socket.ready) this.#admit([tab]);
    else this.#socket.connect();
    this.#rest();
  }

  #leave(tab: Tab, atOnce = !this.#socket?.ready): void {
    if (!this.#tabs.delete(tab)) return;
    if (tab.attached) this.#say("detach", tab);
    tab.attached = false;
    this.#activeAt = performance.now();
    this.#rest();
    if (this.#tabs.size) return;
    const close = (): void => this.#socket!.close();
    if (atOnce) close();
    else this.#grace = setTimeout(close, GRACE);
  }

  /** Attach the tabs whose pages were made for the session of the connection; tell the others. */
  #admit(tabs: Tab[]): void {
    const others = new Set(tabs.filter(({ session }) => session !== this.#session));
    // The page is new, and for another session: then it is the connection that is old.
    const isOld = [...others].some(({ fresh }) => fresh);
    for (const tab of tabs) tab.fresh = false;
    if (isOld) {
      this.#drop("another login");
      this.#socket!.connect();
      return;
    }
    for (const tab of tabs) {
      if (others.has(tab)) this.#dismiss(tab, { t: "stale" });
      else {
        tab.attached = true;
        this.#say("attach", tab, { page: tab.page });
        post(tab, { t: "up", max: this.#max });
      }
    }
  }

  /** Tell the server about a tab. */
  #say(type: string, { renderer }: Tab, payload?: object): void {
    this.#socket!.send(encode({ type, rendererId: renderer, payload }), true);
  }

  /** The last word to a tab. */
  #dismiss(tab: Tab, word: FromBridge): void {
    post(tab, word);
    this.#leave(tab);
  }

  #ping(): void {
    for (const tab of this.#tabs) {
      if (tab.misses++ >= UNANSWERED) this.#leave(tab);
      else post(tab, { t: "ping" });
    }
  }

  /** Whether an answer is due. */
  get #isBusy(): boolean {
    return [...this.#tabs].some(({ sent }) => [...sent.values()].includes(false));
  }

  /** With nobody looking, and nothing going on, the socket rests until somebody does, or something does. */
  #rest(): void {
    clearTimeout(this.#idle);
    const [tab] = this.#tabs;
    if (!tab?.inactivity || [...this.#tabs].some(({ visible }) => visible)) return;
    if (this.#isBusy) this.#activeAt = performance.now();
    const left = this.#activeAt + tab.inactivity - performance.now();
    if (left > 0) this.#idle = setTimeout(() => this.#rest(), left);
    else if (this.#socket!.ready) this.#drop("nobody looks");
  }

  #drop(reason: string): void {
    this.#socket!.close();
    this.lost(1000, reason, "retry");
  }

  // ---------------------------------------------------------------------------------------- the socket

  welcome({ session, maxBytes }: Welcome): void {
    this.#session = session;
    this.#max = maxBytes;
    this.#admit([...this.#tabs]);
    this.#rest();
  }

  lost(code: number, reason: string, meaning: Meaning): void {
    const why = { code, reason };
    if (meaning === "over" && [...this.#tabs].some(({ fresh }) => fresh)) {
      // A page that is newer than this refused handshake was made for a session: ask once more.
      for (const tab of this.#tabs) tab.fresh = false;
      meaning = "retry";
      this.#socket!.connect();
    }
    this.#stopped = meaning === "over" || meaning === "stop";
    for (const tab of this.#tabs) {
      // A page that was made for nobody has no login to lose.
      if (meaning === "over" && tab.session) this.#dismiss(tab, { t: "over", why });
      else if (this.#stopped) this.#lose(tab, why, "stop");
      else if (tab.attached) this.#lose(tab, why);
    }
  }

  /** A tab has no connection any more. */
  #lose(tab: Tab, why: Why, t: "down" | "stop" = "down"): void {
    post(tab, { t, why, lost: [...tab.sent.keys()] });
    tab.sent.clear();
    tab.attached = false;
  }

  receive(messages: Message[]): void {
    for (let i = 0; i < messages.length; i++) {
      let message = messages[i]!;
      const { type, rendererId, requestId } = message;
      const isUpdate = type === "set_props";
      if (rendererId || isUpdate) this.#activeAt = performance.now();
      if (isUpdate) {
        const payload = [message.payload];
        while (messages[i + 1]?.type === type && messages[i + 1]!.rendererId === rendererId) payload.push(messages[++i]!.payload);
        // Dash's renderer then draws once.
        if (payload[1]) message = { type: "set_props_batch", payload };
      }
      for (const tab of this.#tabs) {
        if (!tab.attached || (rendererId ?? (isUpdate && tab.renderer)) !== tab.renderer) continue;
        if (type === "stale") this.#dismiss(tab, { t: "stale" });
        else if (type === "error" && !requestId) {
          // The server carries no more tabs: nothing of this one has been run.
          for (const id of tab.sent.keys()) post(tab, { t: "unsent", id });
          tab.sent.clear();
          this.#lose(tab, { code: 0, reason: message.payload.message }, "stop");
        } else {
          tab.sent.delete(requestId!);
          post(tab, { t: "message", message });
        }
      }
    }
  }
}

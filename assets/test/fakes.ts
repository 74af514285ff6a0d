/**
 * Stand-ins for what the bridge meets in a browser: the clock, the server behind a websocket, locks, shared workers, Dash's
 * renderer. First-class code, used by every test here. (jsdom has no SharedWorker, no locks, and a websocket that wants a
 * network.)
 *
 * A fake does what the real thing does as far as the code under test can tell, and nothing on its own: time passes when the
 * test says `await clock.advance(ms)`, and what is under way arrives when it says `await clock.settle()`. Everything that is
 * asynchronous in a browser is asynchronous here: a message, the end of a socket, the grant of a lock.
 *
 * How to extend them: give a fake the smallest piece of the real interface that the code under test touches, with the real
 * names; let the test drive it through methods of its own (`accept`, `vanish`, `kill`); record what happened in plain lists;
 * hand whatever comes later to `clock.task`, never to a promise of your own, so that `settle` waits for it; run it in the
 * `Realm` that asked for it, so that it ends when that is killed; and when a fake would need the bridge's own logic to be
 * right, use the real thing: a `FakeWorkers` worker runs a real `Bridge`.
 */
import { vi } from "vitest";
import { Bridge } from "../src/bridge";
import { unique } from "../src/link";
import type { Answer } from "../src/requests";
import { decode, type Message } from "../src/wire";

declare function setImmediate(task: () => void): void;
const macrotask = setImmediate;

// ------------------------------------------------------------------------------------------------------------ who acts

/** A page or a worker. Its timers, ports, sockets and locks are its own, and end with it. */
export class Realm {
  static current: Realm;
  isAlive = true;
  private readonly ends: Array<() => void> = [];

  run<T>(task: () => T): T {
    const outer = Realm.current;
    Realm.current = this;
    try {
      return task();
    } finally {
      Realm.current = outer;
    }
  }

  /** As when its process is killed: it does and says nothing more, not even goodbye. */
  kill(): void {
    this.isAlive = false;
    for (const end of this.ends.splice(0)) end();
  }

  atEnd(end: () => void): void {
    this.ends.push(end);
  }

  bind<A extends unknown[]>(task: (...args: A) => void): (...args: A) => void {
    return (...args) => {
      if (this.isAlive) this.run(() => task(...args));
    };
  }
}

// ------------------------------------------------------------------------------------------------------------ time, chance

/** Time and chance, in the test's hands: timers, `performance.now`, `Date`, `Math.random`. Call `end` after each test. */
export class FakeClock {
  private readonly tasks: Array<() => void> = [];
  private readonly undone: Array<() => void> = [];
  private readonly timer: (task: () => void, ms: number) => unknown;
  private chance: () => number = () => 0.5;

  constructor() {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date", "performance"] });
    vi.spyOn(Math, "random").mockImplementation(() => this.chance());
    Realm.current = new Realm();
    const { setTimeout, setInterval } = globalThis;
    this.timer = setTimeout;
    type Start = (task: (...args: unknown[]) => void, ms?: number, ...args: unknown[]) => unknown;
    // With the properties of the function that was there: vitest finds its way back by them.
    const owned = (start: Start): Start => Object.assign(((task, ms, ...args) => start(Realm.current.bind(task), ms, ...args)) as Start, start);
    globalThis.setTimeout = owned(setTimeout as unknown as Start) as typeof setTimeout;
    globalThis.setInterval = owned(setInterval as unknown as Start) as typeof setInterval;
  }

  /** Milliseconds since the page was opened. */
  get now(): number {
    return performance.now();
  }

  /** What `Math.random` gives from here on. */
  random(value: number | (() => number)): void {
    this.chance = typeof value === "number" ? () => value : value;
  }

  /** Something that happens soon, after what is being done now. */
  task(task: () => void): void {
    this.tasks.push(task);
  }

  /** Let everything arrive that is under way. */
  async settle(): Promise<void> {
    do {
      await new Promise<void>((resolve) => macrotask(resolve));
      this.tasks.shift()?.();
      await new Promise<void>((resolve) => macrotask(resolve));
    } while (this.tasks.length);
  }

  /** Let so many milliseconds pass; what happens in them arrives. */
  async advance(ms: number): Promise<void> {
    await this.settle();
    let isThere = false;
    this.timer(() => (isThere = true), ms);
    while (!isThere) {
      vi.advanceTimersToNextTimer();
      await this.settle();
    }
    vi.advanceTimersByTime(0); // what else is due at this very moment
    await this.settle();
  }

  /** Let time pass until something is so. */
  async until(isSo: () => boolean, within = 120_000): Promise<void> {
    const end = this.now + within;
    await this.settle();
    while (!isSo()) {
      if (this.now >= end) throw new Error(`not within ${within} ms`);
      await this.advance(10);
    }
  }

  /** Timers that would still do something. */
  get pending(): number {
    return vi.getTimerCount();
  }

  /** Undo this when the test ends. */
  atEnd(undo: () => void): void {
    this.undone.push(undo);
  }

  end(): void {
    for (const undo of this.undone.splice(0)) undo();
    vi.useRealTimers();
  }
}

/** Chance that can be repeated: the same seed, the same throws. */
export class Dice {
  constructor(private seed: number) {}

  /** From 0 to 1, as `Math.random` (mulberry32). */
  readonly random = (): number => {
    this.seed = (this.seed + 0x6d2b79f5) | 0;
    let x = Math.imul(this.seed ^ (this.seed >>> 15), 1 | this.seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };

  /** A whole number below `limit`. */
  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }
}

// ------------------------------------------------------------------------------------------------------------ the server

/** What a test's server says welcome with, unless told otherwise. */
export const SESSION = "5e55";
export const MAX_BYTES = 1_000_000;
export const HEARTBEAT = 30_000;

/** The server's end of one websocket. */
export class Connection {
  /** Text frames that the server has got, as they came. */
  readonly frames: string[] = [];
  /** How the client closed it: the code that it gave, or null for none. Undefined while it has not. */
  closedByClient: number | null | undefined;
  /** Nothing gets through any more, either way, and neither side is told. */
  isVanished = false;

  constructor(
    readonly socket: FakeWebSocket,
    readonly url: string,
    /** The subprotocols that the client offered. */
    readonly offered: readonly string[],
    private readonly clock: FakeClock,
  ) {}

  /** Whether the client has it, opening or open, and has not closed it. */
  get isLive(): boolean {
    return this.socket.realm.isAlive && this.socket.readyState <= FakeWebSocket.OPEN;
  }

  get messages(): Message[] {
    return this.frames.flatMap(decode);
  }

  /** Messages of one type that the server has got. */
  got(type: string): Message[] {
    return this.messages.filter((message) => message.type === type);
  }

  accept(): this {
    this.reach(() => this.socket.opened());
    return this;
  }

  /** Accept it, and say whose it is. */
  welcome(session: string | null = SESSION, heartbeat = HEARTBEAT): this {
    return this.accept().say({ type: "welcome", payload: { connection: "c0ffee", session, maxBytes: MAX_BYTES, heartbeat } });
  }

  /** Say messages, in one frame. */
  say(...messages: Message[]): this {
    return this.frame(JSON.stringify(messages.length === 1 ? messages[0] : messages));
  }

  /** Send a frame as it is; binary ones are no strings. */
  frame(data: unknown): this {
    this.reach(() => this.socket.heard(data));
    return this;
  }

  close(code: number, reason = ""): void {
    this.reach(() => this.socket.closed(code, reason));
  }

  /** Refuse the handshake: all that a browser shows of that is 1006. */
  refuse(): void {
    this.reach(() => this.socket.closed(1006, ""));
  }

  /** The network is gone, and nobody says so. */
  vanish(): void {
    this.isVanished = true;
  }

  /** Something gets to the client, if anything does. */
  private reach(task: () => void): void {
    this.clock.task(() => !this.isVanished && this.socket.realm.bind(task)());
  }
}

/** A browser's websocket. It delivers what was under way when it was closed here, which a real one may not: the harder case. */
class FakeWebSocket extends EventTarget {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;

  readonly realm = Realm.current;
  readonly connection: Connection;
  readyState = FakeWebSocket.CONNECTING;
  bufferedAmount = 0;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;

  constructor(
    private readonly clock: FakeClock,
    private readonly server: FakeServer,
    url: string | URL,
    protocols: string | string[] = [],
  ) {
    super();
    this.connection = new Connection(this, String(url), [protocols].flat(), clock);
    this.realm.atEnd(() => (this.readyState = FakeWebSocket.CLOSED));
  }

  send(data: string): void {
    if (this.readyState === FakeWebSocket.CONNECTING) throw new DOMException("Still in CONNECTING state", "InvalidStateError");
    if (this.readyState !== FakeWebSocket.OPEN || this.connection.isVanished) return;
    this.connection.frames.push(data);
    this.clock.task(() => {
      for (const message of decode(data)) this.server.answer(message, this.connection);
    });
  }

  close(code?: number): void {
    if (this.readyState >= FakeWebSocket.CLOSING) return;
    const wasOpen = this.readyState === FakeWebSocket.OPEN;
    this.readyState = FakeWebSocket.CLOSING;
    this.connection.closedByClient = code ?? null;
    if (wasOpen) this.connection.close(code ?? 1005);
    else this.clock.task(this.realm.bind(() => this.closed(1006, "")));
  }

  // What the server's end does to it:

  opened(): void {
    if (this.readyState !== FakeWebSocket.CONNECTING) return;
    this.readyState = FakeWebSocket.OPEN;
    this.tell(new Event("open"));
  }

  heard(data: unknown): void {
    if (this.readyState === FakeWebSocket.OPEN || this.readyState === FakeWebSocket.CLOSING) this.tell(new MessageEvent("message", { data }));
  }

  closed(code: number, reason: string): void {
    if (this.readyState === FakeWebSocket.CLOSED) return;
    this.readyState = FakeWebSocket.CLOSED;
    if (code === 1006) this.tell(new Event("error"));
    this.tell(Object.assign(new Event("close"), { code, reason, wasClean: code !== 1006 }));
  }

  private tell(event: Event): void {
    const listener = this[`on${event.type}` as "onopen"];
    listener?.call(this, event);
    this.dispatchEvent(event);
  }
}

/** The server, as far as websockets go; takes the place of the global `WebSocket`. */
export class FakeServer {
  /** Every connection that was ever asked for, in order. */
  readonly connections: Connection[] = [];
  /** The most that were live at one time. */
  mostLive = 0;
  /** As where a Content-Security-Policy forbids it: the constructor throws. */
  isForbidden = false;
  /** Milliseconds between the heartbeats that it asks for, when it serves. */
  heartbeat = HEARTBEAT;
  /** What is done with each new connection, and with each message: nothing, so that the test does it. */
  greet: (connection: Connection) => void = () => {};
  answer: (message: Message, connection: Connection) => void = () => {};

  constructor(clock: FakeClock) {
    const make = (url: string | URL, protocols?: string | string[]): FakeWebSocket => {
      if (this.isForbidden) throw new DOMException("Refused to connect", "SecurityError");
      const socket = new FakeWebSocket(clock, this, url, protocols);
      this.connections.push(socket.connection);
      this.mostLive = Math.max(this.mostLive, this.live.length);
      clock.task(() => this.greet(socket.connection));
      return socket;
    };
    vi.stubGlobal(
      "WebSocket",
      new Proxy(FakeWebSocket, { construct: (_, [url, protocols]) => make(url as string, protocols as string) }),
    );
  }

  get live(): Connection[] {
    return this.connections.filter(({ isLive }) => isLive);
  }

  /** The newest connection. */
  get last(): Connection {
    return this.connections[this.connections.length - 1]!;
  }

  /**
   * Behave as the package's server does: say welcome as the session that the browser's cookie names, attach the tabs of that
   * session, answer heartbeats, and let `run` answer callbacks.
   */
  serve(cookie: () => string | null, run: (request: Message, connection: Connection) => Answer | null = () => null): void {
    const sessions = new Map<Connection, string | null>();
    this.greet = (connection) => {
      sessions.set(connection, cookie());
      connection.welcome(cookie(), this.heartbeat);
    };
    this.answer = (message, connection) => {
      const { type, rendererId, requestId } = message;
      const session = sessions.get(connection)!;
      if (type === "heartbeat") connection.say({ type: "heartbeat_ack" });
      if (type === "attach") {
        const isOwn = message.payload.page === pageOf(session);
        connection.say(isOwn ? { type: "session", rendererId: rendererId!, payload: { session } } : { type: "stale", rendererId: rendererId! });
      }
      const payload = type === "callback_request" ? run(message, connection) : null;
      if (payload) connection.say({ type: "callback_response", rendererId: rendererId!, requestId: requestId!, payload });
    };
  }
}

/** The page token of a page that was made for a session. */
export function pageOf(session: string | null): string {
  return `${session}.page.signed`;
}

// ------------------------------------------------------------------------------------------------------------ locks

interface Claim {
  readonly realm: Realm;
  readonly granted: (lock: unknown) => unknown;
  readonly settle: (result: unknown) => void;
  isHeld: boolean;
}

/** `navigator.locks` of one origin: exclusive ones. Without one of these there are none, as on plain http. */
export class FakeLocks {
  /** As where storage is blocked: requests are rejected. */
  isBlocked = false;
  private readonly claims = new Map<string, Claim[]>();

  constructor(private readonly clock: FakeClock) {
    Object.defineProperty(navigator, "locks", { configurable: true, value: this.manager });
    clock.atEnd(() => delete (navigator as { locks?: unknown }).locks);
  }

  get manager(): LockManager {
    return this as unknown as LockManager;
  }

  /** The names of the locks that somebody holds. */
  get held(): string[] {
    return [...this.claims].filter(([, [first]]) => first?.isHeld).map(([name]) => name);
  }

  /** How many wait for a lock. */
  waiting(name: string): number {
    return (this.claims.get(name) ?? []).filter(({ isHeld }) => !isHeld).length;
  }

  request(name: string, ...rest: [LockGrantedCallback<unknown>] | [LockOptions, LockGrantedCallback<unknown>]): Promise<unknown> {
    const granted = rest[rest.length - 1] as (lock: unknown) => unknown;
    const { signal } = rest.length > 1 ? (rest[0] as LockOptions) : {};
    if (this.isBlocked) return Promise.reject(new DOMException("Storage is blocked", "SecurityError"));
    if (signal?.aborted) return Promise.reject(new DOMException("Aborted", "AbortError"));
    return new Promise((settle, reject) => {
      const claim: Claim = { realm: Realm.current, granted, settle, isHeld: false };
      this.claims.set(name, [...(this.claims.get(name) ?? []), claim]);
      claim.realm.atEnd(() => this.drop(name, claim));
      signal?.addEventListener("abort", () => {
        if (claim.isHeld) return; // too late, as in a browser
        this.drop(name, claim);
        reject(new DOMException("Aborted", "AbortError"));
      });
      this.clock.task(() => this.grant(name));
    });
  }

  private grant(name: string): void {
    const claim = this.claims.get(name)?.[0];
    if (!claim || claim.isHeld) return;
    claim.isHeld = true;
    claim.realm.bind(() => {
      void Promise.resolve(claim.granted({ name, mode: "exclusive" })).then((result) => {
        this.drop(name, claim);
        claim.settle(result);
      });
    })();
  }

  private drop(name: string, claim: Claim): void {
    this.claims.set(name, (this.claims.get(name) ?? []).filter((other) => other !== claim));
    this.clock.task(() => this.grant(name));
  }
}

// ------------------------------------------------------------------------------------------------------------ ports, workers

/** One end of a message channel: what is posted is cloned at once and arrives later, when the other end has been started. */
export class FakePort extends EventTarget {
  other!: FakePort;
  /** Whatever was posted here, also what never arrived. */
  readonly posted: any[] = [];
  isClosed = false;
  private isStarted = false;
  private readonly inbox: unknown[] = [];
  private listener: ((event: MessageEvent) => void) | null = null;

  constructor(
    private readonly clock: FakeClock,
    /** Where its messages arrive. */
    public realm: Realm,
  ) {
    super();
  }

  get port(): MessagePort {
    return this as unknown as MessagePort;
  }

  get onmessage(): ((event: MessageEvent) => void) | null {
    return this.listener;
  }

  set onmessage(listener) {
    this.listener = listener;
    this.start();
  }

  postMessage(message: unknown): void {
    const data: unknown = structuredClone(message);
    this.posted.push(data);
    if (this.isClosed || !this.realm.isAlive) return;
    this.other.inbox.push(data);
    this.clock.task(() => this.other.deliver());
  }

  start(): void {
    this.isStarted = true;
    this.clock.task(() => this.deliver());
  }

  /** What was posted before arrives still. */
  close(): void {
    this.isClosed = true;
  }

  private deliver(): void {
    while (this.isStarted && !this.isClosed && this.inbox.length) {
      const event = new MessageEvent("message", { data: this.inbox.shift() });
      this.realm.bind(() => {
        this.listener?.(event);
        this.dispatchEvent(event);
      })();
    }
  }
}

/** Two ports that lead to each other, in the realms given or in the one that acts. */
export function portPair(clock: FakeClock, one = Realm.current, two = Realm.current): [FakePort, FakePort] {
  const ports: [FakePort, FakePort] = [new FakePort(clock, one), new FakePort(clock, two)];
  [ports[0].other, ports[1].other] = [ports[1], ports[0]];
  return ports;
}

/** A shared worker that runs. */
interface Running {
  readonly realm: Realm;
  readonly url: string;
  readonly name: string;
  readonly accept: (port: MessagePort) => void;
}

/**
 * The browser's shared workers, each with a real bridge in it; takes the place of the global `SharedWorker` and
 * `MessageChannel`.
 */
export class FakeWorkers {
  /** What becomes of workers that are made from here on: they run, their script does not load, it says nothing, or they may not be made. */
  mode: "run" | "fail" | "silent" | "throw" = "run";
  /** The workers that run. */
  running: Running[] = [];
  /** Every worker object that a page made: what for, with its end of the port. */
  readonly made: Array<{ url: string; name: string; port: FakePort }> = [];

  constructor(
    private readonly clock: FakeClock,
    private readonly locks?: FakeLocks,
  ) {
    const workers = this;
    vi.stubGlobal(
      "SharedWorker",
      class SharedWorker extends EventTarget {
        readonly port: FakePort;
        onerror: ((event: Event) => void) | null = null;

        constructor(url: string | URL, options?: string | WorkerOptions) {
          super();
          if (workers.mode === "throw") throw new DOMException("Refused to create a worker", "SecurityError");
          const name = (typeof options === "string" ? options : options?.name) ?? "";
          this.port = workers.connect(String(url), name, () => {
            const event = new Event("error");
            this.onerror?.(event);
            this.dispatchEvent(event);
          });
        }
      },
    );
    vi.stubGlobal(
      "MessageChannel",
      class MessageChannel {
        readonly port1: FakePort;
        readonly port2: FakePort;

        constructor() {
          [this.port1, this.port2] = portPair(clock);
        }
      },
    );
  }

  /** The process that runs the workers dies: nobody is told. */
  kill(): void {
    for (const { realm } of this.running.splice(0)) realm.kill();
  }

  private connect(url: string, name: string, fail: () => void): FakePort {
    const { mode, clock } = this;
    const page = Realm.current;
    const [port, inside] = portPair(clock);
    this.made.push({ url, name, port });
    clock.task(() => {
      if (mode === "fail") page.bind(fail)();
      if (mode !== "run") return;
      let worker = this.running.find((running) => running.url === url && running.name === name);
      if (!worker) {
        const realm = new Realm();
        const bridge = realm.run(() => new Bridge(unique("bridge"), this.locks?.manager));
        this.running.push((worker = { realm, url, name, accept: (to) => bridge.accept(to) }));
      }
      inside.realm = worker.realm;
      worker.realm.bind(worker.accept)(inside.port);
    });
    return port;
  }
}

// ------------------------------------------------------------------------------------------------------------ the renderer

/**
 * Dash's renderer, as far as its `WorkerClient` goes (`dash-renderer/src/utils/workerClient.ts` and what calls it, Dash
 * 4.4): how it makes its worker, waits for `connected`, settles callbacks, and restarts the persistent ones.
 */
export class FakeRenderer {
  /** Whatever the worker said, in order. */
  readonly said: Message[] = [];
  /** What was drawn: one entry for each time that the page is painted, with the updates in it. */
  readonly drawn: unknown[][] = [];
  /** How often the persistent callbacks were started again. */
  restarts = 0;
  /** Payloads of the persistent callbacks, which `onConnected` starts again. */
  readonly persistent: unknown[] = [];
  /** What components have, for the server's questions. */
  props: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {};
  worker: SharedWorker | null = null;
  readonly pending = new Map<string, (answer: Answer) => void>();
  private isConnected = false;
  private wasDisconnected = false;
  private requests = 0;
  private connected: Promise<void> | null = null;
  private resolve: (() => void) | null = null;

  constructor(
    readonly id: string,
    private readonly serverUrl = "wss://dash.example/app/_dash-ws-callback",
    private readonly inactivityTimeout = 300_000,
  ) {}

  connect(): Promise<void> {
    if (this.worker) return Promise.resolve();
    this.worker = new SharedWorker("/app/_dash-component-suites/dash/worker.js", { name: "dash-ws-worker" });
    this.worker.port.onmessage = ({ data }) => this.hear(data);
    this.connected = new Promise((resolve) => (this.resolve = resolve));
    this.worker.port.start();
    const { serverUrl, inactivityTimeout } = this;
    this.post({ type: "connect", rendererId: this.id, payload: { serverUrl, inactivityTimeout, heartbeatInterval: undefined } });
    return this.connected;
  }

  /** Run a callback: its answer. Never settles while nothing answers it. */
  async call(payload: unknown): Promise<Answer> {
    if (!this.isConnected) await (this.connected ?? this.connect());
    const requestId = `${this.id}-${++this.requests}`;
    return new Promise((resolve) => {
      this.pending.set(requestId, resolve);
      this.post({ type: "callback_request", rendererId: this.id, requestId, payload });
    });
  }

  private post(message: Message): void {
    this.worker!.port.postMessage(message);
  }

  private hear(message: Message): void {
    this.said.push(message);
    switch (message.type) {
      case "connected":
        this.isConnected = true;
        this.resolve?.();
        this.resolve = null;
        if (this.wasDisconnected) {
          this.restarts++;
          for (const payload of this.persistent) void this.call(payload);
        }
        break;
      case "disconnected":
        this.isConnected = false;
        for (const resolve of this.pending.values()) resolve({ status: "prevent_update" });
        this.pending.clear();
        this.wasDisconnected = true;
        break;
      case "callback_response":
        this.pending.get(message.requestId!)?.(message.payload);
        this.pending.delete(message.requestId!);
        break;
      case "set_props":
        this.drawn.push([message.payload]);
        break;
      case "set_props_batch":
        this.drawn.push(message.payload);
        break;
      case "get_props_request": {
        const { componentId, properties } = message.payload;
        const has = this.props[componentId];
        const payload = Object.fromEntries((has ? properties : []).map((name: string) => [name, has![name]]));
        if (this.isConnected) this.post({ type: "get_props_response", rendererId: this.id, requestId: message.requestId!, payload });
      }
    }
  }
}

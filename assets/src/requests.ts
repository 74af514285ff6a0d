import { encode, type Message } from "./wire";

/** Requests of one tab that may wait for the socket, and the milliseconds that each of them may wait. */
export const WAITING = 100;
/** Bytes that may wait; and of a message that can go over the socket only. */
export const BYTES = 4 * 1024 * 1024;
export const AGE = 30_000;
/** Milliseconds that a request waits before the server is asked over HTTP, and between two such questions. */
export const FALLBACK = 3_000;
/** Milliseconds between looks at what waits. */
export const LOOK = 1_000;

/** Where the browser's cookies become what a callback has made of them. */
export const EFFECTS = "_dash-quart-ws/effects";

const TOO_LARGE = "Too large for the websocket.";

/** How the page's requests leave it, and how their answers get back. */
export interface Ways {
  /** Hand a message to the bridge. */
  send(text: string, id: string, isEndless: boolean): void;
  /** Something waits for the socket. */
  rouse(): void;
  /** Whether the server answers over HTTP, and takes this page for current. */
  probe(): Promise<boolean>;
  /** Post a callback over HTTP, or something else to another route: the payload of its response. Rejects when there is none. */
  post(payload: unknown, route?: string): Promise<Answer>;
  /** A callback has moved the page to another session. */
  moved(to: Place): void;
  /** Give the renderer a message. */
  tell(message: Message): void;
}

/** The payload of a `callback_response`. */
export interface Answer {
  readonly status: "ok" | "prevent_update" | "error";
  readonly data?: unknown;
  readonly message?: string;
  /** Under this name the server has what the callback did to the browser's cookies; empty once that is done. */
  effects?: string;
}

/** The page's token in another session, and that session's public id; null for nobody. */
export interface Place {
  readonly page: string;
  readonly session: string | null;
}

interface Request {
  readonly id: string;
  readonly message: Message;
  readonly text: string;
  readonly since: number;
  /** A callback without inputs and outputs: Dash's persistent ones, which end with the page. */
  readonly isEndless: boolean;
  /**
   * `waiting` was never sent; `lost` was, and is endless: it has to be started again; the answer to one that is `held` is here,
   * and not shown before the browser has the callback's cookies.
   */
  way: "waiting" | "sent" | "http" | "lost" | "held";
}

/**
 * The callback requests of one tab. Each is sent once, over the socket or over HTTP, and each is answered: with what the
 * server says, or with an error that says why there is nothing.
 *
 * They go over the socket while there is one. Else they wait for it; when that takes too long, and the server answers over
 * HTTP, they go that way until the socket is back. Endless ones go over the socket only, and wait for it as long as it takes:
 * over HTTP nothing would come of them, and nobody waits for their end.
 */
export class Requests {
  readonly #ways: Ways;
  readonly #open = new Map<string, Request>();
  /** Bytes that the socket takes in one message; 0 while there is no socket. */
  #max = 0;
  /** Whether requests go over HTTP while there is no socket; and whether there will be none. */
  #isHttp = false;
  #isStopped = false;
  /** Why there will be no answer. */
  #ended = "";
  #askedAt = -Infinity;
  #looks: ReturnType<typeof setInterval> | undefined;

  constructor(ways: Ways) {
    this.#ways = ways;
  }

  /** The renderer asks for a callback. */
  ask(message: Message): void {
    const waiting = this.#in("waiting");
    const text = encode(message);
    const request: Request = {
      id: message.requestId!,
      message,
      text,
      since: performance.now(),
      isEndless: !message.payload.outputs && !message.payload.inputs?.length,
      way: "waiting",
    };
    this.#open.set(request.id, request);
    if (this.#ended) this.#refuse(request, this.#ended);
    else if (!this.#route(request)) {
      const bytes = waiting.reduce((sum, { text }) => sum + text.length, text.length);
      if (waiting.length >= WAITING || bytes > BYTES) this.#refuse(request, "Too much waits.");
    }
  }

  /** The socket is there, for messages of up to `max` bytes. */
  up(max: number): void {
    this.#max = max;
    this.#isHttp = this.#isStopped = false;
    const lost = this.#in("lost");
    if (lost[0] && lost.length === this.#open.size) {
      this.restart(); // from the state of now
    }
    // While there is anything else, they are sent again as they were.
    for (const request of lost) request.way = "waiting";
    this.#routeAll();
  }

  /** The socket has gone, and with it what these requests would have been answered. */
  down(lost: string[]): void {
    this.#max = 0;
    for (const id of lost) {
      const request = this.#open.get(id);
      if (request?.isEndless) request.way = "lost";
      else if (request) this.#refuse(request, "The connection was lost before the answer came.");
    }
  }

  /** The bridge has gone, and with it the knowledge of what it had sent. */
  died(): void {
    this.down(this.#in("sent").map(({ id }) => id));
  }

  /** There is no socket, and there will be none unless another page gets one. */
  stop(lost: string[]): void {
    this.down(lost);
    this.#isHttp = this.#isStopped = true;
    this.#routeAll();
  }

  /** The bridge could not send this one. */
  unsent(id: string): void {
    const request = this.#open.get(id);
    if (request?.way !== "sent") return;
    request.way = "waiting";
    if (!this.#max) this.#route(request);
    // There is a socket, but it does not get on.
    else if (request.isEndless) this.#wait();
    else this.#overHttp(request);
  }

  /** The renderer answers a question of the server's. */
  reply(message: Message): void {
    const text = encode(message);
    this.#ways.send(isWithin(text, BYTES) ? text : encode({ ...message, payload: {}, error: TOO_LARGE }), "", false);
  }

  /** The answer to a request, if anybody still waits for it. */
  answer(id: string, payload: Answer): void {
    const request = this.#open.get(id);
    if (!request) return;
    if (payload.effects) return this.#overHttp(request, payload);
    this.#open.delete(id);
    this.#ways.tell({ ...request.message, type: "callback_response", payload });
  }

  /** What was asked is nobody's any more. Dash settles it as "no update", and starts its endless ones again. */
  restart(): void {
    this.#open.clear();
    this.#ways.tell({ type: "disconnected" });
    this.#ways.tell({ type: "connected" });
  }

  /** The page is over, says so, and leaves: what it has asked is dropped, and what it asks now is answered with this. */
  end(why: string): void {
    this.#ended = why;
    for (const { id, way } of this.#open.values()) if (way !== "held") this.answer(id, { status: "prevent_update" });
  }

  // ---------------------------------------------------------------------------------------------- one request

  #in(way: Request["way"]): Request[] {
    return [...this.#open.values()].filter((request) => request.way === way);
  }

  #routeAll(): void {
    for (const request of this.#in("waiting")) this.#route(request);
  }

  /** Send a request that waits. False when there is no way to do that now. */
  #route(request: Request): boolean {
    const { id, text, isEndless } = request;
    const fits = isWithin(text, isEndless ? BYTES : this.#max || BYTES);
    if (this.#max && fits) {
      request.way = "sent";
      this.#ways.send(text, id, isEndless);
    } else if (fits && (isEndless || !this.#isHttp)) {
      this.#wait();
      return false;
    } else if (isEndless) this.#refuse(request, TOO_LARGE);
    else this.#overHttp(request);
    return true;
  }

  #wait(): void {
    this.#ways.rouse();
    this.#looks ??= setInterval(() => this.#look(), LOOK);
  }

  /** Post a callback; or the name of what it did, and then give the answer that is held. */
  #overHttp(request: Request, held?: Answer): void {
    request.way = held ? "held" : "http";
    this.#ways.post(held ? { id: held.effects } : request.message.payload, held && EFFECTS).then(
      (answer) => {
        if (!held || answer.status === "error") return this.answer(request.id, answer);
        held.effects = "";
        this.answer(request.id, held);
        if (answer.data && !this.#ended) this.#ways.moved(answer.data as Place);
      },
      () => {
        this.#isHttp = this.#isStopped;
        this.#refuse(request);
      },
    );
  }

  #refuse({ id }: Request, message = "The server cannot be reached."): void {
    this.answer(id, { status: "error", message });
  }

  // ---------------------------------------------------------------------------------------------- while they wait

  #look(): void {
    const now = performance.now();
    if (this.#max) this.#routeAll();
    if (!this.#in("waiting").length) this.#looks = void clearInterval(this.#looks);
    const waiting = this.#in("waiting").filter(({ isEndless }) => !isEndless);
    for (const request of waiting) if (now - request.since > AGE) this.#refuse(request);
    if (waiting[0] && now - Math.max(waiting[0].since, this.#askedAt) >= FALLBACK) {
      this.#askedAt = Infinity;
      void this.#ways.probe().then((works) => {
        this.#askedAt = performance.now();
        if (!works || this.#max) return;
        this.#isHttp = true;
        this.#routeAll();
      });
    }
  }
}

/** Whether a text has at most so many bytes in UTF-8. */
function isWithin(text: string, bytes: number): boolean {
  return new Blob([text]).size <= bytes;
}

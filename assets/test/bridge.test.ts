import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Bridge, type FromBridge, type FromPage, GRACE, type Open, PING, UNANSWERED } from "../src/bridge";
import { DOUBT, FIRST, PATIENCE, SWITCH } from "../src/socket";
import type { Message } from "../src/wire";
import { type Connection, FakeClock, FakeLocks, type FakePort, FakeServer, MAX_BYTES, pageOf, portPair, Realm, SESSION } from "./fakes";

const URL = "wss://dash.example/app/_dash-ws-callback";
const INACTIVITY = 300_000;

let clock: FakeClock;
let server: FakeServer;
let locks: FakeLocks | undefined;
let worker: Realm;
let bridge: Bridge;

/** A page, as far as the bridge sees it. */
class Page {
  readonly realm = new Realm();
  readonly heard: FromBridge[] = [];
  readonly lock: string;
  /** It hears nothing: as in a tab that the browser has suspended. What it would have heard waits. */
  isFrozen = false;
  private readonly waits: FromBridge[] = [];
  private readonly port: FakePort;

  constructor(
    readonly name: string,
    readonly session: string | null = SESSION,
    readonly given: Partial<Open> = {},
  ) {
    this.lock = `lock of ${name}`;
    const [port, inside] = portPair(clock, this.realm, worker);
    this.port = port;
    port.onmessage = ({ data }: MessageEvent<FromBridge>) => {
      if (this.isFrozen) this.waits.push(data);
      else this.hear(data);
    };
    worker.run(() => bridge.accept(inside.port));
  }

  thaw(): void {
    this.isFrozen = false;
    for (const word of this.waits.splice(0)) this.hear(word);
  }

  private hear(word: FromBridge): void {
    if (word.t === "ping") return this.say({ t: "pong" });
    this.heard.push(word);
    if (word.t !== "stale" && word.t !== "over") return;
    // The last word, and the page's own.
    this.bye();
    this.port.close();
  }

  say(said: FromPage): void {
    this.port.postMessage(said);
  }

  open(): this {
    const { lock, session } = this;
    const own = { fresh: true, lock, renderer: this.name, url: URL, inactivity: INACTIVITY };
    this.say({ t: "open", ...own, page: pageOf(session), session, visible: true, ...this.given });
    return this;
  }

  /** Ask for a callback; gives the request's id. */
  ask(n: number, isEndless = false): string {
    const id = `${this.name}-${n}`;
    const request = { type: "callback_request", rendererId: this.name, requestId: id, payload: { output: "o.p", inputs: [{}] } };
    this.say({ t: "send", id, text: JSON.stringify(request), isEndless });
    return id;
  }

  bye(cached = false): void {
    this.say({ t: "bye", cached });
  }

  look(visible: boolean, wake = visible): void {
    this.say({ t: "look", visible, wake });
  }

  /** Hold the lock, and say so, as a page that lives does. */
  hold(): void {
    this.realm.run(() => {
      void locks!.request(this.lock, () => {
        this.say({ t: "held" });
        return new Promise(() => {});
      });
    });
  }

  words(): string[] {
    return this.heard.map(({ t }) => t).filter((t) => t !== "hello" && t !== "message");
  }

  get messages(): Message[] {
    return this.heard.flatMap((heard) => (heard.t === "message" ? [heard.message] : [])).filter(({ type }) => type !== "session");
  }

  last<T extends FromBridge["t"]>(t: T): Extract<FromBridge, { t: T }> {
    return this.heard.filter((heard): heard is Extract<FromBridge, { t: T }> => heard.t === t).pop()!;
  }
}

function start(withLocks: boolean): void {
  locks = withLocks ? new FakeLocks(clock) : undefined;
  worker = new Realm();
  bridge = worker.run(() => new Bridge("the bridge's lock", locks?.manager));
}

beforeEach(() => {
  clock = new FakeClock();
  server = new FakeServer(clock);
  start(true);
});
afterEach(() => clock.end());

/** Pages that are here, on one connection. */
async function attached(...names: string[]): Promise<Page[]> {
  server.serve(() => SESSION);
  const pages = names.map((name) => new Page(name).open());
  await clock.settle();
  return pages;
}

const attaches = (connection: Connection): unknown[] => connection.got("attach").map(({ rendererId }) => rendererId);
const detaches = (connection: Connection): unknown[] => connection.got("detach").map(({ rendererId }) => rendererId);
const update = (value: number): Message => ({ type: "set_props", payload: { componentId: "bar", props: { value } } });

// ------------------------------------------------------------------------------------------------------------ attach

describe("a page that comes", () => {
  test("hears hello, with the lock that shows that the bridge lives", async () => {
    const page = new Page("a");
    await clock.settle();
    expect(page.heard).toEqual([{ t: "hello", lock: "the bridge's lock" }]);
    expect(locks!.held).toEqual(["the bridge's lock"]);
  });

  test("hears of no lock where there are none", async () => {
    start(false);
    const page = new Page("a");
    await clock.settle();
    expect(page.heard).toEqual([{ t: "hello", lock: null }]);
  });

  test("hears of no lock where they are blocked", async () => {
    locks!.isBlocked = true;
    bridge = new Bridge("blocked", locks!.manager);
    const page = new Page("a");
    await clock.settle();
    expect(page.heard).toEqual([{ t: "hello", lock: null }]);
  });

  test("opens the socket, and is attached when the server has said welcome", async () => {
    const page = new Page("a").open();
    await clock.settle();
    expect(server.connections).toHaveLength(1);
    expect(server.last.url).toBe(URL);
    expect(page.words()).toEqual([]);
    server.last.welcome();
    await clock.settle();
    expect(page.last("up")).toEqual({ t: "up", max: MAX_BYTES });
    expect(server.last.got("attach")).toEqual([{ type: "attach", rendererId: "a", payload: { page: pageOf(SESSION) } }]);
  });

  test("says nothing, and is nobody, before it has opened", async () => {
    const page = new Page("a");
    page.ask(1);
    page.look(true);
    page.bye();
    await clock.settle();
    expect(server.connections).toEqual([]);
    expect(page.words()).toEqual([]);
  });

  test("is attached to the connection that is there", async () => {
    const [a, b] = await attached("a", "b");
    const c = new Page("c").open();
    await clock.settle();
    expect(server.connections).toHaveLength(1);
    expect(attaches(server.last)).toEqual(["a", "b", "c"]);
    for (const page of [a!, b!, c]) expect(page.words()).toEqual(["up"]);
  });

  test("sends heartbeats as often as the server says", async () => {
    server.heartbeat = 7_000;
    await attached("a");
    await clock.advance(70_000);
    expect(server.last.got("heartbeat")).toHaveLength(10);
  });

  test("of nobody is attached where there is nobody", async () => {
    server.serve(() => null);
    const page = new Page("a", null).open();
    await clock.settle();
    expect(page.words()).toEqual(["up"]);
    expect(server.last.got("attach")[0]!.payload).toEqual({ page: pageOf(null) });
  });
});

describe("a page of another session than the connection's", () => {
  test("is told that it is stale, and never attached", async () => {
    const [a] = await attached("a");
    const other = new Page("b", "another", { fresh: false }).open();
    await clock.settle();
    expect(other.words()).toEqual(["stale"]);
    expect(attaches(server.last)).toEqual(["a"]);
    expect(detaches(server.last)).toEqual([]);
    expect(a!.words()).toEqual(["up"]);
    expect(server.connections).toHaveLength(1);
  });

  test("is heard no more: nothing that it asks reaches the server", async () => {
    await attached("a");
    const other = new Page("b", "another", { fresh: false }).open();
    await clock.settle();
    other.ask(1);
    other.look(true);
    await clock.settle();
    expect(server.last.got("callback_request")).toEqual([]);
    expect(attaches(server.last)).toEqual(["a"]);
    expect(other.words().filter((word) => word !== "unsent")).toEqual(["stale"]);
  });

  test("that has just been loaded shows that the connection is old: a new one is opened as who the browser is now", async () => {
    let cookie = "alice";
    server.serve(() => cookie);
    const alice = new Page("a", "alice").open();
    await clock.settle();
    const id = alice.ask(1);
    await clock.settle();
    cookie = "bob";
    const bob = new Page("b", "bob").open();
    await clock.settle();
    expect(server.connections).toHaveLength(2);
    expect(server.mostLive).toBe(1);
    expect(bob.words()).toEqual(["up"]);
    expect(alice.words()).toEqual(["up", "down", "stale"]);
    expect(alice.last("down").lost).toEqual([id]);
    expect(attaches(server.last)).toEqual(["b"]);
    expect(server.last.got("callback_request")).toEqual([]);
  });

  test("and the new one is given up in time when it does not answer", async () => {
    clock.random(0);
    server.serve(() => "bob");
    const { greet } = server;
    server.greet = (connection) => {
      const n = server.connections.length;
      if (n === 1) connection.welcome("alice");
      else if (n > 2) greet(connection);
    };
    const bob = new Page("b", "bob").open();
    await clock.advance(PATIENCE - 1);
    expect(server.connections).toHaveLength(2);
    await clock.advance(2);
    expect(bob.words()).toEqual(["up"]);
  });

  test("is stale when the new connection is not its session's either, and there is no third", async () => {
    server.serve(() => "alice");
    const alice = new Page("a", "alice").open();
    await clock.settle();
    const bob = new Page("b", "bob").open();
    await clock.advance(60_000);
    expect(bob.words()).toEqual(["stale"]);
    expect(server.connections).toHaveLength(2);
    expect(alice.words()).toEqual(["up", "down", "up"]);
  });

  test("that waits for the first welcome gets one more try, together with those for whom it was right", async () => {
    server.serve(() => "alice");
    const alice = new Page("a", "alice").open();
    const bob = new Page("b", "bob").open();
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(2);
    expect(alice.words()).toEqual(["up"]);
    expect(bob.words()).toEqual(["stale"]);
    expect(server.connections.map(attaches)).toEqual([[], ["a"]]);
  });

  test("a page that was fresh once is not when the connection is lost: it is stale then", async () => {
    let cookie = "alice";
    server.serve(() => cookie);
    const alice = new Page("a", "alice").open();
    await clock.settle();
    cookie = "bob";
    server.last.close(1012);
    await clock.advance(60_000);
    expect(alice.words()).toEqual(["up", "down", "stale"]);
    expect(server.connections).toHaveLength(2);
    expect(attaches(server.last)).toEqual([]);
  });

  test.each([
    ["nobody's page on somebody's connection", null, "alice"],
    ["somebody's page on nobody's connection", "alice", null],
  ])("%s is one, too", async (_, session, cookie) => {
    server.serve(() => cookie);
    new Page("a", cookie).open();
    await clock.settle();
    const page = new Page("b", session, { fresh: false }).open();
    await clock.settle();
    expect(page.words()).toEqual(["stale"]);
    expect(attaches(server.last)).toEqual(["a"]);
  });

  test("one that the server calls stale is, and no other", async () => {
    const [a, b] = await attached("a", "b");
    server.last.say({ type: "stale", rendererId: "b" });
    await clock.settle();
    expect(a!.words()).toEqual(["up"]);
    expect(b!.words()).toEqual(["up", "stale"]);
    b!.ask(1);
    await clock.settle();
    expect(server.last.got("callback_request")).toEqual([]);
  });
});

describe("a tab that the server does not carry", () => {
  const refusal: Message = { type: "error", rendererId: "b", payload: { message: "too many tabs" } };

  test("goes without the socket; the others do not", async () => {
    const [a, b] = await attached("a", "b");
    const id = b!.ask(1);
    await clock.settle();
    server.last.say(refusal);
    await clock.settle();
    expect(b!.last("stop")).toEqual({ t: "stop", why: { code: 0, reason: "too many tabs" }, lost: [] });
    expect(b!.words()).toEqual(["up", "unsent", "stop"]); // it was never run
    expect(b!.last("unsent").id).toBe(id);
    expect(a!.words()).toEqual(["up"]);
    const later = b!.ask(2);
    a!.ask(1);
    await clock.settle();
    expect(b!.last("unsent")).toEqual({ t: "unsent", id: later });
    expect(server.last.got("callback_request").map(({ requestId }) => requestId)).toEqual([id, "a-1"]);
    expect(server.connections).toHaveLength(1);
  });

  test("hears nothing that is pushed, and is attached on the next connection", async () => {
    const [a, b] = await attached("a", "b");
    server.last.say(refusal, update(1));
    await clock.settle();
    expect(b!.messages).toEqual([]);
    expect(a!.messages).toEqual([update(1)]);
    server.last.close(1012);
    await clock.advance(FIRST);
    expect(attaches(server.last)).toEqual(["a", "b"]);
    expect(b!.words()).toEqual(["up", "stop", "up"]);
  });
});

// ------------------------------------------------------------------------------------------------------------ messages

describe("messages", () => {
  test("of a page reach the server as they were given", async () => {
    const [a] = await attached("a");
    const text = '{"type":"get_props_response","rendererId":"a","requestId":"q","payload":{"x":"é"}}';
    a!.say({ t: "send", id: "", text, isEndless: false });
    await clock.settle();
    expect(server.last.frames).toContain(text);
    expect(a!.words()).toEqual(["up"]);
  });

  test.each(["callback_response", "get_props_request", "set_props"])("a %s goes to its own tab only", async (type) => {
    const [a, b] = await attached("a", "b");
    const message = { type, rendererId: "b", requestId: "b-1", payload: { status: "ok" } };
    server.last.say(message);
    await clock.settle();
    expect(b!.messages).toEqual([message]);
    expect(a!.messages).toEqual([]);
  });

  test("an error about a request goes to its own tab, which stays attached", async () => {
    const [a, b] = await attached("a", "b");
    const error = { type: "error", rendererId: "b", requestId: "b-1", payload: { message: "Bad message" } };
    server.last.say(error, update(1));
    await clock.settle();
    expect(b!.messages).toEqual([error, update(1)]);
    expect(a!.messages).toEqual([update(1)]);
    expect(b!.words()).toEqual(["up"]);
  });

  test("a push goes to every tab", async () => {
    const [a, b] = await attached("a", "b");
    server.last.say(update(1));
    await clock.settle();
    expect(a!.messages).toEqual([update(1)]);
    expect(b!.messages).toEqual([update(1)]);
  });

  test("nobody gets what is for nobody", async () => {
    const [a] = await attached("a");
    server.last.say(
      { type: "heartbeat_ack" },
      { type: "error", payload: { message: "Bad message" } },
      { type: "callback_response", rendererId: "gone", requestId: "gone-1", payload: { status: "ok" } },
      { type: "callback_response", requestId: "a-1", payload: { status: "ok" } },
      { type: "stale" },
      { type: "news of a later version" },
    );
    await clock.settle();
    expect(a!.messages).toEqual([]);
    expect(a!.words()).toEqual(["up"]);
  });

  test("keep their order, across kinds and frames", async () => {
    const [a] = await attached("a");
    const response = (n: number): Message => ({ type: "callback_response", rendererId: "a", requestId: `a-${n}`, payload: { n } });
    server.last.say({ ...update(1), rendererId: "a" }, response(1), { ...update(2), rendererId: "a" }).say(response(2), response(3));
    await clock.settle();
    expect(a!.messages).toEqual([{ ...update(1), rendererId: "a" }, response(1), { ...update(2), rendererId: "a" }, response(2), response(3)]);
  });

  test("updates that come together are drawn together, and no others", async () => {
    const [a, b] = await attached("a", "b");
    const to = (rendererId: string, n: number): Message => ({ ...update(n), rendererId });
    const response: Message = { type: "callback_response", rendererId: "a", requestId: "a-1", payload: {} };
    server.last.say(to("a", 1), to("a", 2), to("a", 3), response, to("a", 4), to("b", 5), update(6), update(7)).say(to("a", 8));
    await clock.settle();
    const batch = (...values: number[]): Message => ({ type: "set_props_batch", payload: values.map((n) => update(n).payload) });
    expect(a!.messages).toEqual([batch(1, 2, 3), response, to("a", 4), batch(6, 7), to("a", 8)]);
    expect(b!.messages).toEqual([to("b", 5), batch(6, 7)]);
  });
});

// ------------------------------------------------------------------------------------------------------------ requests

describe("requests", () => {
  test("that have no answer when the socket is lost are named to their tabs, once", async () => {
    const [a, b] = await attached("a", "b");
    const ids = [a!.ask(1), a!.ask(2), a!.ask(3), b!.ask(1)];
    await clock.settle();
    server.last.say({ type: "callback_response", rendererId: "a", requestId: ids[1]!, payload: { status: "ok" } });
    server.last.say({ type: "error", rendererId: "a", requestId: ids[2]!, payload: { message: "Bad message" } });
    server.last.close(1011, "oops");
    await clock.settle();
    expect(a!.last("down")).toEqual({ t: "down", why: { code: 1011, reason: "oops" }, lost: [ids[0]] });
    expect(b!.last("down")).toEqual({ t: "down", why: { code: 1011, reason: "oops" }, lost: [ids[3]] });
    await clock.advance(FIRST);
    server.last.close(1011);
    await clock.settle();
    expect(a!.last("down").lost).toEqual([]);
  });

  test("are not sent again on the next connection", async () => {
    const [a] = await attached("a");
    a!.ask(1);
    await clock.settle();
    server.last.close(1012);
    await clock.advance(FIRST);
    expect(a!.words()).toEqual(["up", "down", "up"]);
    expect(server.last.got("callback_request")).toEqual([]);
  });

  test("that come while there is no socket are handed back, and never sent", async () => {
    const page = new Page("a").open();
    const id = page.ask(1);
    await clock.settle();
    expect(page.heard.slice(1)).toEqual([{ t: "unsent", id }]);
    server.last.welcome();
    await clock.settle();
    expect(server.last.got("callback_request")).toEqual([]);
    expect(page.words()).toEqual(["unsent", "up"]);
  });

  test("and what is no request is dropped then", async () => {
    const page = new Page("a").open();
    page.say({ t: "send", id: "", text: '{"type":"get_props_response"}', isEndless: false });
    await clock.settle();
    server.last.welcome();
    await clock.settle();
    expect(page.words()).toEqual(["up"]);
    expect(server.last.got("get_props_response")).toEqual([]);
  });

  test("that a slow network does not take are handed back; the socket stays", async () => {
    const [a] = await attached("a");
    server.last.socket.bufferedAmount = 100_000_000;
    const id = a!.ask(1);
    await clock.settle();
    expect(a!.words()).toEqual(["up", "unsent"]);
    expect(a!.last("unsent").id).toBe(id);
    expect(server.connections).toHaveLength(1);
    server.last.close(1006);
    await clock.settle();
    expect(a!.last("down").lost).toEqual([]);
  });

  test("asked while the next attempt is waited for do not hasten it", async () => {
    clock.random(1);
    const [a] = await attached("a");
    server.last.close(1012);
    await clock.settle();
    a!.ask(1);
    a!.say({ t: "rouse" });
    await clock.advance(FIRST - 1);
    expect(server.connections).toHaveLength(1);
    await clock.advance(1);
    expect(server.connections).toHaveLength(2);
  });
});

// ------------------------------------------------------------------------------------------------------------ the end

describe("when the session is over", () => {
  test.each([4501, 4502, 4503])("every tab of it is told (%i), and the socket stays away", async (code) => {
    const [a, b] = await attached("a", "b");
    server.last.close(code, "why");
    await clock.advance(60_000);
    for (const page of [a!, b!]) {
      expect(page.words()).toEqual(["up", "over"]);
      expect(page.last("over")).toEqual({ t: "over", why: { code, reason: "why" } });
      page.ask(1);
      page.look(true);
    }
    await clock.advance(60_000);
    expect(a!.words().filter((word) => word !== "unsent")).toEqual(["up", "over"]);
    expect(server.connections).toHaveLength(1);
    expect(server.live).toEqual([]);
  });

  test("a page that has just been loaded asks once more: it was made for a session", async () => {
    server.serve(() => SESSION);
    const { greet } = server;
    server.greet = (connection) => {
      server.greet = greet;
      connection.accept().close(4501, "not logged in");
    };
    const page = new Page("a").open();
    await clock.settle();
    expect(page.words()).toEqual(["up"]);
    expect(server.connections).toHaveLength(2);
    server.last.close(4501, "logged out");
    await clock.advance(60_000);
    expect(page.words()).toEqual(["up", "over"]);
    expect(server.connections).toHaveLength(2);
  });

  test("and no more than once", async () => {
    const page = new Page("a").open();
    for (let n = 0; n < 2; n++) {
      await clock.settle();
      server.last.accept().close(4501, "not logged in");
    }
    await clock.advance(60_000);
    expect(page.words()).toEqual(["over"]);
    expect(page.last("over").why).toEqual({ code: 4501, reason: "not logged in" });
    expect(server.connections).toHaveLength(2);
  });

  test("a page that comes then opens a socket again", async () => {
    await attached("a");
    server.last.close(4501);
    await clock.settle();
    server.serve(() => "next");
    const page = new Page("b", "next").open();
    await clock.settle();
    expect(page.words()).toEqual(["up"]);
    expect(server.connections).toHaveLength(2);
    expect(attaches(server.last)).toEqual(["b"]);
  });

  test("a page that was made for nobody has no session that could end: its callbacks go over HTTP", async () => {
    server.serve(() => null);
    const page = new Page("a", null).open();
    await clock.settle();
    const id = page.ask(1);
    await clock.settle();
    server.last.close(4501, "not logged in");
    await clock.advance(60_000);
    expect(page.words()).toEqual(["up", "stop"]);
    expect(page.last("stop")).toEqual({ t: "stop", why: { code: 4501, reason: "not logged in" }, lost: [id] });
    expect(server.connections).toHaveLength(1);
  });
});

describe("when the server wants no socket", () => {
  test("every tab is told, with what it has lost, and nothing brings the socket back", async () => {
    const [a, b] = await attached("a", "b");
    const id = a!.ask(1);
    await clock.settle();
    server.last.close(4505, "abuse");
    await clock.settle();
    expect(a!.last("stop")).toEqual({ t: "stop", why: { code: 4505, reason: "abuse" }, lost: [id] });
    expect(b!.last("stop").lost).toEqual([]);
    const later = a!.ask(2);
    a!.look(false);
    a!.look(true);
    b!.look(true, true);
    b!.say({ t: "rouse" });
    await clock.advance(60_000);
    expect(a!.last("unsent").id).toBe(later);
    expect(server.connections).toHaveLength(1);
  });

  test("a connection that a page has brought back is doubted as any other when somebody looks", async () => {
    clock.random(0);
    const [a] = await attached("a");
    server.last.close(4505);
    await clock.settle();
    new Page("b").open();
    await clock.settle();
    server.last.vanish();
    a!.look(true);
    await clock.advance(DOUBT + 10);
    expect(server.connections).toHaveLength(3);
  });

  test("a page that comes tries again, for all", async () => {
    const [a] = await attached("a");
    server.last.close(4505);
    await clock.settle();
    const b = new Page("b").open();
    await clock.settle();
    expect(a!.words()).toEqual(["up", "stop", "up"]);
    expect(b.words()).toEqual(["up"]);
    expect(attaches(server.last)).toEqual(["a", "b"]);
  });
});

describe("when the session has been switched", () => {
  test("the page of the next session brings the socket at once", async () => {
    let cookie = "alice";
    server.serve(() => cookie);
    const alice = new Page("a", "alice").open();
    await clock.settle();
    cookie = "bob";
    server.last.close(4102);
    await clock.settle();
    expect(alice.words()).toEqual(["up", "down"]);
    const bob = new Page("b", "bob").open();
    await clock.settle();
    expect(bob.words()).toEqual(["up"]);
    expect(alice.words()).toEqual(["up", "down", "stale"]);
  });

  test("without one it comes back by itself, after two seconds", async () => {
    clock.random(0);
    let cookie = "alice";
    server.serve(() => cookie);
    const alice = new Page("a", "alice").open();
    await clock.settle();
    cookie = "bob";
    server.last.close(4102);
    await clock.advance(SWITCH - 1);
    expect(server.connections).toHaveLength(1);
    await clock.advance(1);
    expect(alice.words()).toEqual(["up", "down", "stale"]);
  });
});

// ------------------------------------------------------------------------------------------------------------ tabs that go

describe("a tab that goes", () => {
  test("is detached when it says goodbye; the others stay", async () => {
    const [a, b] = await attached("a", "b");
    a!.bye();
    await clock.advance(60_000);
    expect(detaches(server.last)).toEqual(["a"]);
    server.last.say(update(1));
    await clock.settle();
    expect(a!.messages).toEqual([]);
    expect(b!.messages).toHaveLength(1);
    expect(server.live).toHaveLength(1);
  });

  test("is detached once, whether it says goodbye, dies, or both", async () => {
    const [a] = await attached("a", "b");
    a!.hold();
    await clock.settle();
    a!.bye();
    await clock.settle();
    a!.realm.kill();
    await clock.advance(60_000);
    expect(detaches(server.last)).toEqual(["a"]);
  });

  test("that dies is detached through its lock", async () => {
    const [a] = await attached("a", "b");
    a!.hold();
    await clock.settle();
    expect(locks!.waiting(a!.lock)).toBe(1);
    a!.realm.kill();
    await clock.settle();
    expect(detaches(server.last)).toEqual(["a"]);
  });

  test("its lock is not asked for before it is held: the bridge might get it first", async () => {
    const [a] = await attached("a");
    await clock.advance(60_000);
    expect(locks!.waiting(a!.lock)).toBe(0);
    expect(locks!.held).not.toContain(a!.lock);
    expect(detaches(server.last)).toEqual([]);
  });

  test("is detached through its lock also when it was not attached", async () => {
    const page = new Page("a").open();
    page.hold();
    new Page("b").open();
    await clock.settle();
    page.realm.kill();
    await clock.settle();
    server.last.welcome();
    await clock.settle();
    expect(attaches(server.last)).toEqual(["b"]);
    expect(detaches(server.last)).toEqual([]);
  });

  test("as the last one closes the socket, after a moment in which the next page may come", async () => {
    const [a] = await attached("a");
    a!.bye();
    await clock.advance(GRACE - 1);
    expect(server.live).toHaveLength(1);
    await clock.advance(1);
    expect(server.live).toEqual([]);
    expect(detaches(server.last)).toEqual(["a"]);
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(1);
  });

  test("as the last one into the back-forward cache closes it at once: page and bridge may be frozen now", async () => {
    const [a, b] = await attached("a", "b");
    a!.bye(true);
    await clock.settle();
    expect(server.live).toHaveLength(1);
    b!.bye(true);
    await clock.settle();
    expect(server.live).toEqual([]);
    expect(detaches(server.last)).toEqual(["a", "b"]);
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(1);
  });

  test("and that comes in this moment finds the socket there", async () => {
    const [a] = await attached("a");
    a!.bye();
    await clock.advance(GRACE - 1);
    const b = new Page("b").open();
    await clock.advance(60_000);
    expect(b.words()).toEqual(["up"]);
    expect(server.connections).toHaveLength(1);
    expect(server.live).toHaveLength(1);
  });

  test.each(["it is being opened", "the next attempt is waited for"])("as the last one leaves no socket behind while %s", async (when) => {
    clock.random(1);
    const page = new Page("a").open();
    await clock.settle();
    if (when !== "it is being opened") server.last.refuse();
    await clock.settle();
    page.bye();
    await clock.advance(60_000);
    expect(server.connections.length).toBeLessThanOrEqual(2);
    expect(server.live).toEqual([]);
    const before = server.connections.length;
    await clock.advance(10 * 60_000);
    expect(server.connections).toHaveLength(before);
  });

  test("comes back: a page that is opened again on a new port is attached again", async () => {
    const [a] = await attached("a");
    a!.bye();
    await clock.settle();
    const again = new Page("a", SESSION, { fresh: false }).open();
    await clock.settle();
    expect(again.words()).toEqual(["up"]);
    expect(server.last.messages.filter(({ type }) => type !== "heartbeat").map(({ type }) => type)).toEqual(["attach", "detach", "attach"]);
  });
});

describe("where there are no locks", () => {
  beforeEach(() => start(false));

  test("a tab that answers stays", async () => {
    await attached("a");
    await clock.advance(20 * PING);
    expect(detaches(server.last)).toEqual([]);
    expect(server.live).toHaveLength(1);
  });

  test("a tab that has died is detached within seconds; the others stay", async () => {
    const [a, b] = await attached("a", "b");
    await clock.advance(PING / 2);
    a!.realm.kill();
    await clock.advance((UNANSWERED - 1) * PING);
    expect(detaches(server.last)).toEqual([]);
    await clock.advance(3 * PING);
    expect(detaches(server.last)).toEqual(["a"]);
    server.last.say(update(1));
    await clock.settle();
    expect(b!.messages).toHaveLength(1);
  });

  test.each(["says nothing", "asks", "is looked at"] as const)("a tab that was suspended is attached again when it answers (and %s)", async (how) => {
    const [a] = await attached("a", "b");
    a!.isFrozen = true;
    await clock.advance(10 * PING);
    expect(detaches(server.last)).toEqual(["a"]);
    a!.thaw();
    if (how === "asks") a!.ask(1);
    if (how === "is looked at") a!.look(true);
    await clock.advance(10 * PING);
    expect(attaches(server.last)).toEqual(["a", "b", "a"]);
    expect(detaches(server.last)).toEqual(["a"]);
    expect(server.last.got("callback_request")).toHaveLength(how === "asks" ? 1 : 0);
  });

  test("a tab that was suspended, and asks before it answers, is told that this was not sent", async () => {
    const [a] = await attached("a", "b");
    a!.isFrozen = true;
    await clock.advance(10 * PING);
    const id = a!.ask(1);
    await clock.settle();
    a!.thaw();
    await clock.settle();
    expect([...a!.words()].sort()).toEqual(["down", "unsent", "up", "up"]);
    expect(a!.last("unsent").id).toBe(id);
    expect(server.last.got("callback_request")).toEqual([]);
  });

  test.each([
    ["stale", () => void server.last.say({ type: "stale", rendererId: "a" })],
    ["over", () => server.last.close(4501)],
  ])("a tab whose last word was %s leaves nothing behind, also when an answer of its own was under way", async (word, act) => {
    const [a] = await attached("a");
    a!.isFrozen = true;
    await clock.advance(PING + 10);
    act();
    await clock.settle();
    a!.thaw();
    await clock.advance(60_000);
    expect(a!.words()).toEqual(["up", word]);
    expect(server.live).toEqual([]);
    const before = server.connections.length;
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(before);
  });

  test("what a suspended tab had asked is named to it as lost: it was cancelled", async () => {
    const [a] = await attached("a", "b");
    const id = a!.ask(1);
    await clock.settle();
    a!.isFrozen = true;
    await clock.advance(10 * PING);
    a!.thaw();
    await clock.settle();
    expect(a!.words()).toEqual(["up", "down", "up"]);
    expect(a!.last("down").lost).toEqual([id]);
  });

  test("a page that took the bridge for dead, and comes a second time, is one tab: its first self is detached", async () => {
    const [a] = await attached("a", "b");
    a!.ask(1, true);
    await clock.settle();
    const again = new Page("a", SESSION, { fresh: false }).open();
    await clock.settle();
    expect(server.last.messages.filter(({ rendererId }) => rendererId === "a").map(({ type }) => type)).toEqual([
      "attach",
      "callback_request",
      "detach",
      "attach",
    ]);
    server.last.say(update(1));
    await clock.settle();
    expect(again.messages).toHaveLength(1);
    expect(a!.messages).toEqual([]);
    expect(again.words()).toEqual(["up"]);
  });

  test("a tab that was suspended, and belongs to nobody any more, is stale when it is heard", async () => {
    let cookie = "alice";
    server.serve(() => cookie);
    const alice = new Page("a", "alice").open();
    await clock.settle();
    alice.isFrozen = true;
    await clock.advance(10 * PING);
    cookie = "bob";
    new Page("b", "bob").open();
    await clock.settle();
    alice.ask(1);
    alice.thaw();
    alice.ask(2);
    await clock.settle();
    expect(alice.words()).toContain("stale");
    expect(server.connections.flatMap((connection) => connection.got("callback_request"))).toEqual([]);
  });

  test("with locks, no tab is asked", async () => {
    start(true);
    server.serve(() => SESSION);
    const [port, inside] = portPair(clock, new Realm(), worker);
    const heard: unknown[] = [];
    port.onmessage = ({ data }) => heard.push(data.t);
    bridge.accept(inside.port);
    await clock.advance(20 * PING);
    expect(heard).not.toContain("ping");
  });
});

// ------------------------------------------------------------------------------------------------------------ rest

describe("when nobody is looking", () => {
  const HIDDEN = { visible: false };

  async function hidden(...names: string[]): Promise<Page[]> {
    server.serve(() => SESSION);
    const pages = names.map((name) => new Page(name, SESSION, HIDDEN).open());
    await clock.settle();
    return pages;
  }

  test("the socket rests after a time, and stays away", async () => {
    const [a] = await hidden("a", "b");
    await clock.advance(INACTIVITY - 1);
    expect(server.live).toHaveLength(1);
    await clock.advance(1);
    expect(server.live).toEqual([]);
    expect(a!.last("down")).toMatchObject({ lost: [] });
    await clock.advance(3 * INACTIVITY);
    expect(server.connections).toHaveLength(1);
  });

  test("what never has an answer is named, as when it was lost", async () => {
    const [a] = await hidden("a");
    const id = a!.ask(1, true);
    await clock.settle();
    await clock.advance(INACTIVITY);
    expect(a!.last("down").lost).toEqual([id]);
  });

  test("a moment after what happened last, to the second", async () => {
    await hidden("a");
    await clock.advance(1_000);
    server.last.say(update(1));
    await clock.advance(INACTIVITY - 1);
    expect(server.live).toHaveLength(1);
    await clock.advance(1);
    expect(server.live).toEqual([]);
  });

  test("what is no request has no answer that would keep it, or be lost", async () => {
    const [a] = await hidden("a");
    a!.say({ t: "send", id: "", text: '{"type":"get_props_response"}', isEndless: false });
    await clock.settle();
    await clock.advance(INACTIVITY);
    expect(server.live).toEqual([]);
    expect(a!.last("down").lost).toEqual([]);
  });

  test("a callback that still runs keeps it, however long", async () => {
    const [a] = await hidden("a");
    const id = a!.ask(1);
    await clock.advance(5 * INACTIVITY);
    expect(server.live).toHaveLength(1);
    server.last.say({ type: "callback_response", rendererId: "a", requestId: id, payload: { status: "ok" } });
    await clock.settle();
    expect(a!.messages).toHaveLength(1);
    await clock.advance(INACTIVITY);
    expect(server.live).toEqual([]);
  });

  test("it is back when a tab is shown", async () => {
    const [a, b] = await hidden("a", "b");
    await clock.advance(INACTIVITY);
    a!.look(true);
    await clock.settle();
    expect(server.connections).toHaveLength(2);
    expect(b!.words()).toEqual(["up", "down", "up"]);
    await clock.advance(3 * INACTIVITY);
    expect(server.live).toHaveLength(1);
  });

  test("it is back when a tab asks for something", async () => {
    const [a] = await hidden("a");
    await clock.advance(INACTIVITY);
    const id = a!.ask(1);
    await clock.settle();
    expect(a!.last("unsent").id).toBe(id);
    a!.say({ t: "rouse" });
    await clock.settle();
    expect(a!.words()).toEqual(["up", "down", "unsent", "up"]);
  });

  test("it is back when a page comes", async () => {
    await hidden("a");
    await clock.advance(INACTIVITY);
    const b = new Page("b").open();
    await clock.settle();
    expect(b.words()).toEqual(["up"]);
  });

  test("a tab that is looked at keeps it, however idle", async () => {
    await hidden("a");
    const b = new Page("b").open();
    await clock.advance(4 * INACTIVITY);
    expect(server.connections).toHaveLength(1);
    expect(server.live).toHaveLength(1);
    b.look(false);
    await clock.settle();
    await clock.advance(INACTIVITY);
    expect(server.live).toEqual([]);
  });

  test("when the tab that was looked at goes, the others count", async () => {
    await hidden("a");
    const b = new Page("b").open();
    await clock.advance(2 * INACTIVITY);
    b.bye();
    await clock.advance(INACTIVITY);
    expect(server.live).toEqual([]);
  });

  test.each([
    ["what tabs ask", (page: Page) => void page.ask(1, true)],
    ["what tabs hide", (page: Page) => page.look(false)],
    ["what the server answers", () => void server.last.say({ type: "callback_response", rendererId: "a", requestId: "x", payload: {} })],
    ["what the server pushes", () => void server.last.say(update(1))],
  ])("%s keeps it", async (_, act) => {
    const [a] = await hidden("a");
    for (let n = 0; n < 5; n++) {
      await clock.advance(INACTIVITY - 1_000);
      act(a!);
      await clock.settle();
    }
    expect(server.connections).toHaveLength(1);
    expect(server.live).toHaveLength(1);
    await clock.advance(INACTIVITY);
    expect(server.live).toEqual([]);
  });

  test("never, where pages say so", async () => {
    server.serve(() => SESSION);
    new Page("a", SESSION, { ...HIDDEN, inactivity: 0 }).open();
    await clock.advance(10 * INACTIVITY);
    expect(server.live).toHaveLength(1);
  });
});

describe("when somebody looks, or the network is back", () => {
  test("a socket that waits for its time does not wait any longer", async () => {
    clock.random(1);
    const [a] = await attached("a");
    server.last.close(1012);
    await clock.settle();
    a!.look(true);
    await clock.settle();
    expect(server.connections).toHaveLength(2);
    expect(a!.words()).toEqual(["up", "down", "up"]);
  });

  test.each([
    [false, "a request that runs", 1],
    [true, "an endless one", 2],
  ])("a connection that may be dead is found out soon, unless its answer may be late (endless: %s)", async (isEndless, _, connections) => {
    clock.random(0);
    const [a] = await attached("a");
    await clock.advance(1_000);
    a!.ask(1, isEndless);
    await clock.settle();
    server.last.vanish();
    a!.look(true);
    await clock.advance(DOUBT + 10);
    expect(server.connections).toHaveLength(connections);
  });

  test("a tab that is hidden does not bring it back sooner", async () => {
    clock.random(1);
    const [a] = await attached("a");
    server.last.close(1012);
    await clock.settle();
    a!.look(false);
    await clock.settle();
    expect(server.connections).toHaveLength(1);
  });
});

test("two apps of one browser have their own bridges", async () => {
  const [a] = await attached("a");
  const other = new Bridge("another lock", locks!.manager);
  const own = bridge;
  bridge = other;
  const b = new Page("b", SESSION, { url: "wss://dash.example/other/_dash-ws-callback" }).open();
  bridge = own;
  await clock.settle();
  expect(server.connections.map(({ url }) => url)).toEqual([URL, "wss://dash.example/other/_dash-ws-callback"]);
  server.connections[0]!.say(update(1));
  await clock.settle();
  expect(a!.messages).toHaveLength(1);
  expect(b.messages).toEqual([]);
});

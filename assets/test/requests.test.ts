import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AGE, type Answer, BYTES, EFFECTS, FALLBACK, LOOK, type Place, Requests, WAITING } from "../src/requests";
import type { Message } from "../src/wire";
import { Dice, FakeClock } from "./fakes";

const MAX = 10_000;
const UNREACHABLE = "The server cannot be reached.";

/** A promise that the test settles. */
class Asked<T> {
  readonly payload: unknown;
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (why: unknown) => void;

  constructor(payload?: unknown) {
    this.payload = payload;
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
  }
}

/** The ways out of a page, noted. */
class Ways {
  readonly sent: string[] = [];
  readonly texts: string[] = [];
  readonly probes: Array<Asked<boolean>> = [];
  readonly posts: Array<Asked<Answer>> = [];
  readonly routes: Array<string | undefined> = [];
  readonly places: Place[] = [];
  readonly told: Message[] = [];
  roused = 0;
  onSend: (id: string) => void = () => {};

  readonly endless: boolean[] = [];

  send(text: string, id: string, isEndless: boolean): void {
    this.sent.push(id);
    this.texts.push(text);
    this.endless.push(isEndless);
    this.onSend(id);
  }

  rouse(): void {
    this.roused++;
  }

  probe(): Promise<boolean> {
    this.probes.push(new Asked());
    return this.probes.at(-1)!.promise;
  }

  post(payload: unknown, route?: string): Promise<Answer> {
    this.routes.push(route);
    this.posts.push(new Asked(payload));
    return this.posts.at(-1)!.promise;
  }

  moved(to: Place): void {
    this.places.push(to);
  }

  tell(message: Message): void {
    this.told.push(message);
  }

  /** What was answered to a request, each time that it was. */
  answers(id: string): Answer[] {
    return this.told.filter(({ requestId }) => requestId === id).map(({ payload }) => payload);
  }
}

let clock: FakeClock;
let ways: Ways;
let requests: Requests;

beforeEach(() => {
  clock = new FakeClock();
  ways = new Ways();
  requests = new Requests(ways);
});
afterEach(() => clock.end());

const request = (requestId: string, value: unknown = 1): Message => ({
  type: "callback_request",
  rendererId: "tab",
  requestId,
  payload: { output: "o.p", outputs: { id: "o", property: "p" }, inputs: [{ id: "i", property: "p", value }] },
});

/** One of Dash's persistent callbacks: nothing that it waits for, nothing that it gives. */
const endless = (requestId: string): Message => ({
  type: "callback_request",
  rendererId: "tab",
  requestId,
  payload: { output: "", outputs: null, inputs: [], changedPropIds: [] },
});

const lost = { status: "error", message: "The connection was lost before the answer came." };
const ok: Answer = { status: "ok", data: { multi: true, response: {} } };

describe("an answer with effects", () => {
  const place: Place = { page: "token", session: "s2" };
  const types = (): string[] => ways.told.map(({ type }) => type);

  beforeEach(() => {
    requests.up(MAX);
    requests.ask(request("1"));
    requests.answer("1", { ...ok, effects: "5ec1" });
  });

  test("is not shown before the browser has them", async () => {
    expect(ways.told).toEqual([]);
    expect([ways.posts[0]!.payload, ways.routes]).toEqual([{ id: "5ec1" }, [EFFECTS]]);
    ways.posts[0]!.resolve({ status: "prevent_update" });
    await clock.settle();
    expect(ways.answers("1")).toEqual([{ ...ok, effects: "" }]);
    expect(ways.places).toEqual([]);
  });

  test.each(["prevent_update", "error"] as const)("may be one without a result (%s)", async (status) => {
    requests.ask(request("2"));
    requests.answer("2", { status, effects: "5ec2" });
    ways.posts[1]!.resolve({ status: "prevent_update" });
    await clock.settle();
    expect(ways.answers("2")).toMatchObject([{ status }]);
  });

  test("is an error when the browser does not get them, and is not asked for again", async () => {
    ways.posts[0]!.resolve({ status: "error", message: "no such effects" });
    await clock.settle();
    expect(ways.answers("1")).toEqual([{ status: "error", message: "no such effects" }]);
    requests.ask(request("2"));
    requests.answer("2", { ...ok, effects: "5ec2" });
    ways.posts[1]!.reject(new TypeError());
    await clock.settle();
    expect(ways.answers("2")).toEqual([{ status: "error", message: UNREACHABLE }]);
    expect(ways.posts).toHaveLength(2);
  });

  test("is not lost with the connection, nor with the bridge, nor with the page's session", async () => {
    requests.down([]); // the bridge has handed its answer over
    requests.died();
    requests.end("over");
    expect(ways.told).toEqual([]);
    ways.posts[0]!.resolve({ status: "prevent_update" });
    await clock.settle();
    expect(ways.answers("1")).toHaveLength(1);
  });

  test("moves the page to another session, if they do, once it is shown", async () => {
    ways.posts[0]!.resolve({ status: "ok", data: place });
    await clock.settle();
    expect(ways.answers("1")).toHaveLength(1);
    expect(ways.places).toEqual([place]);
  });

  test("does not move a page that is over", async () => {
    requests.end("over");
    ways.posts[0]!.resolve({ status: "ok", data: place });
    await clock.settle();
    expect(ways.places).toEqual([]);
  });

  test("comes once, whatever else comes under its id", async () => {
    ways.posts[0]!.resolve({ status: "prevent_update" });
    await clock.settle();
    requests.answer("1", { ...ok, effects: "5ec2" });
    expect([ways.posts.length, ways.answers("1").length]).toEqual([1, 1]);
  });

  test("after a move nothing that was asked before is answered or sent, and the endless ones begin anew", async () => {
    requests.ask(endless("2"));
    requests.down(["2"]);
    requests.ask(request("3"));
    requests.restart();
    expect(types()).toEqual(["disconnected", "connected"]);
    requests.ask(request("4"));
    requests.up(MAX);
    expect(ways.sent).toEqual(["1", "2", "4"]);
    requests.answer("2", ok);
    requests.answer("3", ok);
    expect(types()).toEqual(["disconnected", "connected"]);
  });
});

describe("while there is a socket", () => {
  beforeEach(() => requests.up(MAX));

  test("a request is sent at once, as it is, and answered with what the server says", () => {
    requests.ask(request("1"));
    expect(ways.texts).toEqual([JSON.stringify(request("1"))]);
    expect(ways.told).toEqual([]);
    requests.answer("1", ok);
    expect(ways.told).toEqual([{ ...request("1"), type: "callback_response", payload: ok }]);
    expect(clock.pending).toBe(0);
  });

  test("what answers nothing that is open is dropped", () => {
    requests.answer("1", ok);
    requests.ask(request("1"));
    requests.answer("1", ok);
    requests.answer("1", { status: "error", message: "again" });
    expect(ways.answers("1")).toEqual([ok]);
  });

  test("requests keep their order", () => {
    for (const id of ["1", "2", "3"]) requests.ask(request(id));
    expect(ways.sent).toEqual(["1", "2", "3"]);
  });

  test("one that is too large goes over HTTP at once; the next over the socket", async () => {
    requests.ask(request("1", "x".repeat(MAX)));
    requests.ask(request("2"));
    expect(ways.sent).toEqual(["2"]);
    expect(ways.posts.map(({ payload }) => payload)).toEqual([request("1", "x".repeat(MAX)).payload]);
    ways.posts[0]!.resolve(ok);
    await clock.settle();
    expect(ways.answers("1")).toEqual([ok]);
  });

  test("size is counted in bytes, to the last one", () => {
    const room = MAX - JSON.stringify(request("1", "")).length;
    requests.ask(request("1", "x".repeat(room)));
    requests.ask(request("2", "x".repeat(room + 1)));
    requests.ask(request("3", "é".repeat(room / 2)));
    requests.ask(request("4", "é".repeat(room / 2 + 1)));
    expect(ways.sent).toEqual(["1", "3"]);
    expect(ways.posts).toHaveLength(2);
  });

  test("an endless one goes over the socket, also when it is larger than others may be", () => {
    requests.up(10);
    requests.ask(endless("1"));
    expect(ways.sent).toEqual(["1"]);
    expect(ways.posts).toEqual([]);
  });

  test("an endless one that is too large for any socket is an error, and waits for nothing", () => {
    const large = { ...endless("1"), payload: { output: "", outputs: null, inputs: [], state: "x".repeat(BYTES) } };
    requests.ask(large);
    expect(ways.answers("1")).toEqual([{ status: "error", message: expect.stringMatching(/too large/i) }]);
    expect(ways).toMatchObject({ sent: [], posts: [] });
  });

  test("the bridge is told which ones are endless", () => {
    requests.ask(request("1"));
    requests.ask(endless("2"));
    expect(ways.endless).toEqual([false, true]);
  });

  test("an answer to a question of the server's goes out as it is; one that is too large says so instead", () => {
    const reply: Message = { type: "get_props_response", rendererId: "tab", requestId: "q", payload: { value: "typed" } };
    requests.reply(reply);
    requests.reply({ ...reply, payload: { value: "x".repeat(BYTES) } });
    expect(ways.sent).toEqual(["", ""]);
    expect(JSON.parse(ways.texts[0]!)).toEqual(reply);
    expect(JSON.parse(ways.texts[1]!)).toEqual({ ...reply, payload: {}, error: expect.stringMatching(/too large/i) });
  });

  test("one that a slow network does not take goes over HTTP, once", async () => {
    requests.ask(request("1"));
    requests.unsent("1");
    requests.unsent("1");
    expect(ways.posts).toHaveLength(1);
    expect(ways.sent).toEqual(["1"]);
    ways.posts[0]!.resolve(ok);
    await clock.settle();
    expect(ways.answers("1")).toEqual([ok]);
    requests.ask(request("2"));
    expect(ways.sent).toEqual(["1", "2"]);
  });

  test("an endless one that the socket does not take now is tried again later, not in a loop", async () => {
    ways.onSend = (id) => clock.task(() => ways.sent.length < 100 && requests.unsent(id));
    requests.ask(endless("1"));
    await clock.advance(2 * LOOK - 1);
    expect(ways.sent.length).toBeLessThanOrEqual(3);
    ways.onSend = () => {};
    await clock.advance(2 * LOOK);
    const tries = ways.sent.length;
    await clock.advance(60_000);
    expect(ways.sent).toHaveLength(tries);
    expect(tries).toBeGreaterThan(1);
    expect(ways.posts).toEqual([]);
    expect(ways.told).toEqual([]);
  });

  test.each([
    ["no outputs, but inputs", { output: "", outputs: null, inputs: [{ id: "i", property: "p", value: 1 }] }],
    ["no inputs, but outputs", { output: "o.p", outputs: { id: "o", property: "p" }, inputs: [] }],
  ])("a callback with %s is none of the endless ones", (_, payload) => {
    requests.ask({ ...request("1"), payload });
    requests.down(["1"]);
    expect(ways.answers("1")).toEqual([lost]);
  });
});

describe("when the socket breaks", () => {
  beforeEach(() => requests.up(MAX));

  test("what had been sent is answered with an error, and not sent again", async () => {
    for (const id of ["1", "2", "3"]) requests.ask(request(id));
    requests.answer("2", ok);
    requests.down(["1", "3"]);
    expect(ways.answers("1")).toEqual([lost]);
    expect(ways.answers("2")).toEqual([ok]);
    expect(ways.answers("3")).toEqual([lost]);
    requests.up(MAX);
    await clock.advance(60_000);
    expect(ways.sent).toEqual(["1", "2", "3"]);
    expect(ways.posts).toEqual([]);
  });

  test("what is lost and already answered is not answered again", () => {
    requests.ask(request("1"));
    requests.answer("1", ok);
    requests.down(["1", "unknown"]);
    expect(ways.told).toHaveLength(1);
  });

  test("what was under way to it, and was not sent, waits, and is sent on the next one", () => {
    requests.ask(request("1"));
    requests.down([]);
    requests.unsent("1");
    expect(ways.told).toEqual([]);
    requests.up(MAX);
    expect(ways.sent).toEqual(["1", "1"]);
  });

  test("with the whole bridge, all that it had is answered with an error", () => {
    requests.ask(request("1"));
    requests.ask(request("2"));
    requests.died();
    requests.unsent("1");
    expect(ways.answers("1")).toEqual([lost]);
    expect(ways.answers("2")).toEqual([lost]);
  });

  test("what goes over HTTP is not affected", async () => {
    requests.ask(request("1", "x".repeat(MAX)));
    requests.down([]);
    requests.died();
    requests.up(MAX);
    ways.posts[0]!.resolve(ok);
    await clock.settle();
    expect(ways.answers("1")).toEqual([ok]);
    expect(ways.sent).toEqual([]);
  });

  test("and bridge and page miss it, what waits there waits on", () => {
    requests.down([]);
    requests.ask(request("1"));
    requests.died();
    expect(ways.told).toEqual([]);
    requests.up(MAX);
    expect(ways.sent).toEqual(["1"]);
  });
});

describe("while there is no socket", () => {
  test("requests wait, wake the socket, and are sent in order when it is there", async () => {
    for (const id of ["1", "2", "3"]) requests.ask(request(id));
    expect(ways.sent).toEqual([]);
    expect(ways.roused).toBeGreaterThan(0);
    await clock.advance(FALLBACK - LOOK);
    requests.up(MAX);
    expect(ways.sent).toEqual(["1", "2", "3"]);
    await clock.advance(60_000);
    expect(ways).toMatchObject({ probes: [], posts: [], told: [] });
  });

  test("so many wait at most; the next is answered with an error", () => {
    for (let n = 0; n < WAITING; n++) requests.ask(request(`${n}`));
    expect(ways.told).toEqual([]);
    requests.ask(request("one too many"));
    expect(ways.answers("one too many")).toEqual([{ status: "error", message: "Too much waits." }]);
    requests.up(MAX);
    expect(ways.sent).toHaveLength(WAITING);
    requests.down([]);
    for (let n = 0; n < WAITING; n++) requests.unsent(`${n}`);
    requests.up(MAX);
    requests.ask(request("later"));
    expect(ways.sent).toContain("later");
  });

  test("so many bytes wait at most; the next is answered with an error", () => {
    const half = "x".repeat(BYTES / 2 - 1_000);
    requests.ask(request("1", half));
    requests.ask(request("2", half));
    expect(ways.told).toEqual([]);
    requests.ask(request("3", half));
    expect(ways.answers("3")).toHaveLength(1);
    requests.ask(request("4"));
    expect(ways.answers("4")).toEqual([]);
  });

  test("one that is larger than all that may wait goes over HTTP at once", () => {
    requests.ask(request("1", "x".repeat(BYTES)));
    expect(ways.posts).toHaveLength(1);
    expect(ways.told).toEqual([]);
  });

  test("one that turns out to be too large goes over HTTP when the socket is there", () => {
    requests.ask(request("1", "x".repeat(2 * MAX)));
    requests.ask(request("2"));
    requests.up(MAX);
    expect(ways.sent).toEqual(["2"]);
    expect(ways.posts).toHaveLength(1);
  });

  test("a request waits so long at most", async () => {
    requests.ask(request("1"));
    await clock.advance(AGE / 2);
    requests.ask(request("2"));
    await clock.advance(AGE / 2 - 1);
    expect(ways.told).toEqual([]);
    await clock.advance(2 * LOOK);
    expect(ways.answers("1")).toEqual([{ status: "error", message: UNREACHABLE }]);
    expect(ways.answers("2")).toEqual([]);
    requests.up(MAX);
    expect(ways.sent).toEqual(["2"]);
  });

  test("nothing is looked at when nothing waits", async () => {
    requests.ask(request("1"));
    requests.up(MAX);
    requests.answer("1", ok);
    await clock.advance(2 * LOOK);
    expect(clock.pending).toBe(0);
    requests.down([]);
    requests.ask(request("2"));
    await clock.advance(AGE + 2 * LOOK);
    expect(ways.answers("2")).toHaveLength(1);
    await clock.advance(2 * LOOK);
    expect(clock.pending).toBe(0);
  });
});

describe("when the socket does not come", () => {
  test("the server is asked over HTTP after a while, and not more often than so", async () => {
    requests.ask(request("1"));
    await clock.advance(FALLBACK - 1);
    expect(ways.probes).toEqual([]);
    await clock.advance(LOOK);
    expect(ways.probes).toHaveLength(1);
    ways.probes[0]!.resolve(false);
    await clock.advance(FALLBACK - LOOK);
    expect(ways.probes).toHaveLength(1);
    await clock.advance(2 * LOOK);
    expect(ways.probes).toHaveLength(2);
    expect(ways).toMatchObject({ posts: [], told: [] });
  });

  test("it goes over HTTP when the server says that this works, and so does what follows", async () => {
    requests.ask(request("1"));
    requests.ask(request("2"));
    await clock.advance(FALLBACK);
    ways.probes[0]!.resolve(true);
    await clock.settle();
    expect(ways.posts.map(({ payload }) => payload)).toEqual([request("1").payload, request("2").payload]);
    requests.ask(request("3"));
    expect(ways.posts).toHaveLength(3);
    ways.posts[2]!.resolve(ok);
    ways.posts[0]!.resolve({ status: "prevent_update" });
    await clock.settle();
    expect(ways.answers("3")).toEqual([ok]);
    expect(ways.answers("1")).toEqual([{ status: "prevent_update" }]);
    expect(ways.answers("2")).toEqual([]);
    expect(ways.sent).toEqual([]);
  });

  test("it goes over the socket again when that is there, and what was posted is not sent", async () => {
    requests.ask(request("1"));
    await clock.advance(FALLBACK);
    ways.probes[0]!.resolve(true);
    await clock.settle();
    requests.up(MAX);
    requests.ask(request("2"));
    expect(ways.sent).toEqual(["2"]);
    requests.down(["2"]);
    requests.ask(request("3"));
    expect(ways.posts).toHaveLength(1);
    expect(ways.answers("3")).toEqual([]);
  });

  test("an answer that comes after the socket is no reason to leave that", async () => {
    requests.ask(request("1"));
    await clock.advance(FALLBACK);
    requests.up(MAX);
    ways.probes[0]!.resolve(true);
    await clock.settle();
    requests.ask(request("2"));
    expect(ways.sent).toEqual(["1", "2"]);
    requests.down(["1", "2"]);
    requests.ask(request("3"));
    expect(ways.posts).toEqual([]);
  });

  test("a post that gets no answer is an error, and the next request waits and asks again", async () => {
    requests.ask(request("1"));
    await clock.advance(FALLBACK);
    ways.probes[0]!.resolve(true);
    await clock.settle();
    ways.posts[0]!.reject(new TypeError("Failed to fetch"));
    await clock.settle();
    expect(ways.answers("1")).toEqual([{ status: "error", message: UNREACHABLE }]);
    requests.ask(request("2"));
    expect(ways.posts).toHaveLength(1);
    await clock.advance(FALLBACK + LOOK);
    expect(ways.probes).toHaveLength(2);
  });

  test("an endless one waits, for as long as it takes, and asks nobody over HTTP", async () => {
    requests.ask(endless("1"));
    await clock.advance(10 * AGE);
    expect(ways).toMatchObject({ sent: [], probes: [], posts: [], told: [] });
    requests.ask(request("2"));
    await clock.advance(FALLBACK + LOOK);
    ways.probes[0]!.resolve(true);
    await clock.settle();
    expect(ways.posts).toHaveLength(1);
    requests.ask(endless("3"));
    expect(ways.posts).toHaveLength(1);
    requests.up(MAX);
    expect(ways.sent).toEqual(["1", "3"]);
  });
});

describe("when there will be no socket", () => {
  test("all that waits, and all that follows, goes over HTTP at once", () => {
    requests.ask(request("1"));
    requests.stop([]);
    requests.ask(request("2"));
    expect(ways.posts.map(({ payload }) => payload)).toEqual([request("1").payload, request("2").payload]);
    expect(ways.sent).toEqual([]);
  });

  test("what had been sent is answered with an error; what was handed back goes over HTTP", () => {
    requests.up(MAX);
    requests.ask(request("1"));
    requests.ask(request("2"));
    requests.stop(["1"]);
    requests.unsent("2");
    expect(ways.answers("1")).toEqual([lost]);
    expect(ways.answers("2")).toEqual([]);
    expect(ways.posts).toHaveLength(1);
  });

  test("endless ones wait all the same, whether they had been started or not: another page may bring one", async () => {
    requests.up(MAX);
    requests.ask(endless("1"));
    requests.stop(["1"]);
    requests.ask(endless("2"));
    requests.ask(request("3"));
    await clock.advance(10 * AGE);
    expect(ways.told).toEqual([]);
    expect(ways.posts).toHaveLength(1);
    requests.up(MAX);
    expect([...ways.sent].sort()).toEqual(["1", "1", "2"]);
  });

  test("a post that gets no answer is an error, and the next goes over HTTP all the same", async () => {
    requests.stop([]);
    requests.ask(request("1"));
    ways.posts[0]!.reject(new TypeError("Failed to fetch"));
    await clock.settle();
    expect(ways.answers("1")).toEqual([{ status: "error", message: UNREACHABLE }]);
    requests.ask(request("2"));
    expect(ways.posts).toHaveLength(2);
  });

  test("and there is one after all, everything goes that way again", () => {
    requests.stop([]);
    requests.up(MAX);
    requests.ask(request("1"));
    requests.ask(endless("2"));
    expect(ways.sent).toEqual(["1", "2"]);
    requests.down(["1", "2"]);
    requests.ask(request("3"));
    requests.ask(endless("4"));
    expect(ways.posts).toEqual([]);
    expect(ways.answers("3")).toEqual([]);
    expect(ways.answers("4")).toEqual([]);
  });

  test("and there was one after all, HTTP that fails is not gone back to without asking", async () => {
    requests.stop([]);
    requests.up(MAX);
    requests.down([]);
    requests.ask(request("1"));
    await clock.advance(FALLBACK);
    ways.probes[0]!.resolve(true);
    await clock.settle();
    ways.posts[0]!.reject(new TypeError("Failed to fetch"));
    await clock.settle();
    requests.ask(request("2"));
    expect(ways.posts).toHaveLength(1);
  });
});

describe("when the page is over", () => {
  test("nothing stays open, nothing is sent any more, and what is asked then is answered with why", async () => {
    requests.up(MAX);
    requests.ask(request("sent"));
    requests.ask(request("posted", "x".repeat(MAX)));
    requests.ask(endless("endless"));
    requests.down([]);
    requests.ask(request("waiting"));
    requests.end("You are signed out.");
    for (const id of ["sent", "posted", "endless", "waiting"]) expect(ways.answers(id)).toHaveLength(1);
    const [sent, posts] = [ways.sent.length, ways.posts.length];
    requests.ask(request("later"));
    expect(ways.answers("later")).toEqual([{ status: "error", message: "You are signed out." }]);
    ways.posts[0]!.resolve(ok);
    requests.unsent("sent");
    await clock.advance(60_000);
    expect(ways.sent).toHaveLength(sent);
    expect(ways.posts).toHaveLength(posts);
    expect(ways.told).toHaveLength(5);
  });
});

describe("endless callbacks that the server has lost", () => {
  beforeEach(() => {
    requests.up(MAX);
    requests.ask(endless("1"));
    requests.ask(endless("2"));
    requests.down(["1", "2"]);
  });

  test("are not answered: they are started again, Dash's way, when nothing else is open", () => {
    expect(ways.told).toEqual([]);
    requests.up(MAX);
    expect(ways.told.map(({ type }) => type)).toEqual(["disconnected", "connected"]);
    expect(ways.sent).toEqual(["1", "2"]);
    requests.answer("1", ok);
    expect(ways.told).toHaveLength(2);
  });

  test("what Dash then asks is sent, once", () => {
    const { told } = ways;
    ways.tell = (message) => {
      told.push(message);
      if (message.type === "connected") requests.ask(endless("3"));
    };
    requests.up(MAX);
    expect(ways.sent).toEqual(["1", "2", "3"]);
    requests.down(["3"]);
    requests.up(MAX);
    expect(told.map(({ type }) => type)).toEqual(["disconnected", "connected", "disconnected", "connected"]);
  });

  test("are sent again as they were while something else is open: that would be settled as no update", () => {
    requests.ask(request("3"));
    requests.up(MAX);
    expect(ways.told).toEqual([]);
    expect([...ways.sent].sort()).toEqual(["1", "1", "2", "2", "3"]);
    requests.answer("3", ok);
    expect(ways.answers("3")).toEqual([ok]);
  });

  test("are not restarted while nothing was lost", () => {
    requests.up(MAX);
    ways.told.length = 0;
    requests.ask(endless("3"));
    requests.down([]);
    requests.up(MAX);
    expect(ways.told).toEqual([]);
  });
});

// ------------------------------------------------------------------------------------------------------------ all of it

/** A bridge, a server and a renderer around `Requests`; words between page and bridge take their time. */
class World {
  readonly requests: Requests;
  readonly course: string[] = [];
  /** Open requests, as the renderer knows them. */
  readonly pending = new Set<string>();
  /** How often each was run, as far as anybody can know. */
  readonly runs = new Map<string, number>();
  readonly endless = new Set<string>();
  readonly posts: Array<Asked<Answer>> = [];
  readonly probes: Array<Asked<boolean>> = [];
  isEnded = false;
  private asked = 0;
  private toBridge: string[] = [];
  private toPage: Array<() => void> = [];
  /** What the bridge has sent, and has no answer to; what it sent on this connection at all. */
  private readonly sent = new Set<string>();
  private readonly onThisOne = new Set<string>();
  private isUp = false;
  private isSlow = false;

  constructor(
    readonly dice: Dice,
    private readonly seed: number,
  ) {
    this.requests = new Requests({
      send: (_, id) => void this.toBridge.push(id),
      rouse: () => {},
      probe: () => {
        this.probes.push(new Asked());
        return this.probes.at(-1)!.promise;
      },
      post: (payload) => {
        const { id } = payload as { id: string };
        this.check(!this.endless.has(id), `${id} is endless, and was posted`);
        this.run(id);
        this.posts.push(new Asked(payload));
        return this.posts.at(-1)!.promise;
      },
      moved: () => {},
      tell: (message) => this.tell(message),
    });
  }

  check(isSo: boolean, what: string): void {
    if (!isSo) throw new Error(`${what}, with seed ${this.seed}: ${this.course.join(", ")}`);
  }

  private run(id: string): void {
    const runs = (this.runs.get(id) ?? 0) + 1;
    this.runs.set(id, runs);
    this.check(this.endless.has(id) || runs === 1, `${id} ran twice`);
  }

  private tell({ type, requestId }: Message): void {
    if (type === "callback_response") {
      this.check(this.pending.delete(requestId!), `${requestId} was answered twice`);
    } else if (type === "disconnected") {
      for (const id of this.pending) this.check(this.endless.has(id), `${id} was settled as no update`);
      this.restarts = this.pending.size;
      this.pending.clear();
    } else if (type === "connected") {
      while (this.restarts > 0) {
        this.restarts--;
        this.ask(true);
      }
    }
  }
  private restarts = 0;

  ask(isEndless: boolean, size = 1): void {
    const id = `${++this.asked}`;
    this.pending.add(id);
    if (isEndless) this.endless.add(id);
    const { payload } = isEndless ? endless(id) : request(id, "x".repeat(size));
    this.requests.ask({ type: "callback_request", rendererId: "tab", requestId: id, payload: { ...payload, id } });
  }

  /** The bridge hears the next request. */
  bridgeHears(): void {
    const id = this.toBridge.shift();
    if (id === undefined) return;
    if (!this.isUp || this.isSlow) return void this.toPage.push(() => this.requests.unsent(id));
    this.check(!this.onThisOne.has(id), `${id} was sent twice on one connection`);
    this.onThisOne.add(id);
    this.sent.add(id);
    this.run(id);
  }

  pageHears(): void {
    this.toPage.shift()?.();
  }

  connect(): void {
    if (this.isUp) return;
    this.isUp = true;
    this.isSlow = false;
    this.onThisOne.clear();
    this.toPage.push(() => this.requests.up(MAX));
  }

  private lose(): string[] {
    const lost = [...this.sent];
    this.sent.clear();
    this.isUp = false;
    return lost;
  }

  break(): void {
    if (!this.isUp) return;
    const lost = this.lose();
    this.toPage.push(() => this.requests.down(lost));
  }

  stop(): void {
    const lost = this.lose();
    this.toPage.push(() => this.requests.stop(lost));
  }

  die(): void {
    this.lose();
    this.toPage = [];
    this.toBridge = [];
    this.requests.died();
  }

  slow(): void {
    this.isSlow = !this.isSlow;
  }

  answer(): void {
    const some = [...this.sent].filter((id) => !this.endless.has(id) || this.dice.random() < 0.1);
    if (!some.length) return;
    const id = this.dice.pick(some);
    this.sent.delete(id);
    this.toPage.push(() => this.requests.answer(id, ok));
  }

  reply(): void {
    if (!this.posts.length) return;
    const [post] = this.posts.splice(this.dice.below(this.posts.length), 1);
    if (this.dice.random() < 0.7) post!.resolve(ok);
    else post!.reject(new TypeError("Failed to fetch"));
  }

  found(): void {
    this.probes.shift()?.resolve(this.dice.random() < 0.6);
  }

  end(): void {
    this.isEnded = true;
    this.requests.end("You are signed out.");
  }

  /** Everything comes to rest: the socket is there, or will not be, and whoever was asked answers. */
  async rest(isStopped: boolean): Promise<void> {
    this.slow();
    this.isSlow = false;
    if (isStopped) this.stop();
    else this.connect();
    for (let n = 0; n < 400; n++) {
      this.bridgeHears();
      this.pageHears();
      this.answer();
      this.reply();
      this.found();
      if (n % 50 === 0) await clock.advance(AGE);
      else await clock.settle();
    }
  }
}

describe("whatever happens, each request is answered once, and run once at most", () => {
  test.each(Array.from({ length: 80 }, (_, n) => n + 1))("in the course of events %i", async (seed) => {
    const dice = new Dice(seed);
    const world = new World(dice, seed);
    const often = <T>(times: number, event: T): T[] => Array<T>(times).fill(event);
    const events: Array<() => void | Promise<void>> = [
      ...often(6, function ask() { world.ask(false); }),
      ...often(1, function askLarge() { world.ask(false, 2 * MAX); }),
      ...often(2, function askEndless() { world.ask(true); }),
      ...often(8, function bridgeHears() { world.bridgeHears(); }),
      ...often(8, function pageHears() { world.pageHears(); }),
      ...often(3, function connect() { world.connect(); }),
      ...often(2, function breaks() { world.break(); }),
      ...often(1, function die() { world.die(); }),
      ...often(seed % 4 ? 0 : 1, function stop() { world.stop(); }),
      ...often(1, function slow() { world.slow(); }),
      ...often(4, function answer() { world.answer(); }),
      ...often(3, function reply() { world.reply(); }),
      ...often(2, function found() { world.found(); }),
      ...often(2, async function shortWait() { await clock.advance(dice.below(1_500)); }),
      ...often(1, async function longWait() { await clock.advance(dice.below(20_000)); }),
    ];
    for (let step = 0; step < 120; step++) {
      const event = dice.pick(events);
      world.course.push(event.name);
      await event();
      await clock.settle();
    }
    if (seed % 5 === 0) {
      world.end();
      expect([...world.pending], `seed ${seed}`).toEqual([]);
      world.ask(false);
      world.ask(true);
    }
    await world.rest(seed % 3 === 0);
    const open = [...world.pending].filter((id) => world.isEnded || !world.endless.has(id));
    expect(open, `seed ${seed}: ${world.course.join(", ")}`).toEqual([]);
  });
});

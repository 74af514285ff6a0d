import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Meaning } from "../src/close";
import { BUFFERED, CROWDED, DOUBT, FIRST, GOOD, type Listener, LONGEST, PATIENCE, Socket, SWITCH, SWITCHING } from "../src/socket";
import { type Message, SUBPROTOCOL, type Welcome } from "../src/wire";
import { Dice, FakeClock, FakeServer, HEARTBEAT, MAX_BYTES, SESSION } from "./fakes";

const URL = "wss://dash.example/app/_dash-ws-callback";

/** Who listens to the socket: notes everything. */
class Notes implements Listener {
  readonly welcomes: Welcome[] = [];
  readonly messages: Message[] = [];
  readonly losses: Array<{ code: number; reason: string; meaning: Meaning }> = [];

  welcome(welcome: Welcome): void {
    this.welcomes.push(welcome);
  }

  receive(messages: Message[]): void {
    this.messages.push(...messages);
  }

  lost(code: number, reason: string, meaning: Meaning): void {
    this.losses.push({ code, reason, meaning });
  }
}

let clock: FakeClock;
let server: FakeServer;
let notes: Notes;
let socket: Socket;

beforeEach(() => {
  clock = new FakeClock();
  server = new FakeServer(clock);
  notes = new Notes();
  socket = new Socket(URL, notes);
});
afterEach(() => clock.end());

/** Connect, and be welcome. */
async function open(): Promise<void> {
  socket.connect();
  server.last.welcome();
  await clock.settle();
}

/** The next attempt is made when so many milliseconds have passed, give or take one. */
async function comesAfter(wait: number): Promise<void> {
  const before = server.connections.length;
  if (wait > 1) await clock.advance(wait - 1);
  expect(server.connections).toHaveLength(before);
  await clock.advance(2);
  expect(server.connections).toHaveLength(before + 1);
}

describe("a connection", () => {
  test("offers the bridge's subprotocol", () => {
    socket.connect();
    expect(server.last).toMatchObject({ url: URL, offered: [SUBPROTOCOL] });
  });

  test("is ready when the server has said welcome, not before", async () => {
    socket.connect();
    server.last.accept();
    await clock.settle();
    expect(socket.ready).toBe(false);
    expect(socket.send("{}")).toBe(false);
    server.last.welcome();
    await clock.settle();
    expect(socket.ready).toBe(true);
    expect(notes.welcomes).toEqual([{ connection: "c0ffee", session: SESSION, maxBytes: MAX_BYTES, heartbeat: HEARTBEAT }]);
    expect(socket.send("{}")).toBe(true);
    expect(server.last.frames).toContain("{}");
  });

  test("gives nothing that comes before the welcome to anybody", async () => {
    socket.connect();
    server.last.accept().say({ type: "set_props", payload: 1 });
    server.last.say({ type: "set_props", payload: 2 }, { type: "welcome", payload: { session: null, maxBytes: 1 } });
    await clock.settle();
    expect(notes).toMatchObject({ welcomes: [], messages: [] });
    expect(socket.ready).toBe(false);
  });

  test("gives what came in one frame with the welcome after it", async () => {
    socket.connect();
    server.last.accept().say({ type: "welcome", payload: { session: SESSION, maxBytes: 1 } }, { type: "a" }, { type: "b" });
    await clock.settle();
    expect(notes.welcomes).toHaveLength(1);
    expect(notes.messages).toEqual([{ type: "a" }, { type: "b" }]);
  });

  test("gives messages in the order in which they came", async () => {
    await open();
    server.last.say({ type: "a" }, { type: "b" }).frame("[]").say({ type: "c" });
    await clock.settle();
    expect(notes.messages.map(({ type }) => type)).toEqual(["a", "b", "c"]);
    expect(socket.ready).toBe(true);
    expect(server.live).toHaveLength(1);
  });

  test("that is there, or on its way, is not opened twice", async () => {
    socket.connect();
    socket.connect();
    socket.wake(false);
    socket.rouse();
    server.last.welcome();
    await clock.settle();
    socket.connect();
    socket.wake(false);
    socket.rouse();
    await clock.settle();
    expect(server.connections).toHaveLength(1);
  });

  test.each([
    ["never answers", () => {}],
    ["accepts, and says nothing", () => server.last.accept()],
    ["accepts, and says anything but welcome", () => server.last.accept().say({ type: "set_props" })],
  ])("to a server that %s is given up, and tried again", async (_, act) => {
    clock.random(0);
    socket.connect();
    act();
    await clock.advance(PATIENCE - 1);
    expect(notes.losses).toEqual([]);
    await clock.advance(1);
    expect(notes.losses).toMatchObject([{ code: 1006, meaning: "retry" }]);
    expect(server.connections[0]!.isLive).toBe(false);
    await clock.advance(1);
    expect(server.connections).toHaveLength(2);
  });

  test("takes no more for now when a slow network has too much already", async () => {
    await open();
    server.last.socket.bufferedAmount = BUFFERED + 1;
    expect(socket.send('{"type":"late"}')).toBe(false);
    server.last.socket.bufferedAmount = BUFFERED;
    expect(socket.send('{"type":"again"}')).toBe(true);
    expect(server.last.got("late")).toEqual([]);
    expect(server.last.got("again")).toHaveLength(1);
  });

  test("that may not be made is tried again, and says so each time", async () => {
    server.isForbidden = true;
    clock.random(1);
    socket.connect();
    expect(notes.losses).toMatchObject([{ code: 1006, meaning: "retry" }]);
    await clock.advance(FIRST);
    expect(notes.losses).toHaveLength(2);
    server.isForbidden = false;
    await clock.advance(2 * FIRST);
    expect(server.connections).toHaveLength(1);
  });
});

test.each([HEARTBEAT, 0])("a connection that is opened when the last one says welcome is given up in time, too (heartbeat %i)", async (heartbeat) => {
  notes.welcome = () => {
    socket.close();
    socket.connect();
  };
  socket.connect();
  server.last.welcome(SESSION, heartbeat);
  await clock.settle();
  expect(server.connections).toHaveLength(2);
  await clock.advance(PATIENCE);
  expect(notes.losses).toMatchObject([{ code: 1006, meaning: "retry" }]);
});

test("what comes in one frame with a welcome that is not taken is about nothing any more", async () => {
  notes.welcome = () => socket.close();
  socket.connect();
  const welcome = { type: "welcome", payload: { session: SESSION, maxBytes: 1, heartbeat: HEARTBEAT } };
  server.last.accept().say(welcome, { type: "set_props" });
  await clock.advance(60_000);
  expect(server.live).toEqual([]);
  expect(clock.pending).toBe(0);
});

describe("closed here", () => {
  test("it stays closed", async () => {
    await open();
    socket.close();
    expect(socket.ready).toBe(false);
    expect(socket.send("{}")).toBe(false);
    await clock.advance(10 * 60_000);
    expect(server.connections).toHaveLength(1);
    expect(server.last.closedByClient).not.toBeUndefined();
    expect(notes.losses).toEqual([]);
    expect(clock.pending).toBe(0);
  });

  test.each(["connecting", "waiting for the next attempt"])("while %s, it stays closed", async (when) => {
    socket.connect();
    if (when !== "connecting") server.last.refuse();
    await clock.settle();
    notes.losses.length = 0;
    socket.close();
    await clock.advance(10 * 60_000);
    expect(server.connections).toHaveLength(1);
    expect(notes.losses).toEqual([]);
    expect(clock.pending).toBe(0);
  });

  test.each(["connect", "rouse", "wake"] as const)("%s opens it again", async (how) => {
    await open();
    socket.close();
    socket[how](false);
    expect(server.live).toHaveLength(1);
    server.last.welcome();
    await clock.settle();
    expect(socket.ready).toBe(true);
  });

  test("what the old connection still says is about nothing any more", async () => {
    await open();
    const old = server.last;
    socket.close();
    socket.connect();
    old.say({ type: "set_props" }).welcome("old session");
    old.close(4503, "banned");
    await clock.settle();
    expect(notes).toMatchObject({ messages: [], losses: [] });
    expect(notes.welcomes).toHaveLength(1);
    server.last.welcome("new");
    await clock.settle();
    expect(notes.welcomes[1]).toMatchObject({ session: "new" });
    expect(server.live).toEqual([server.last]);
    expect(server.connections).toHaveLength(2);
  });
});

describe("a socket that was lost comes back", () => {
  test.each([0, 0.25, 0.999])("after a random part (%d) of a time that doubles, up to a limit", async (part) => {
    clock.random(part);
    socket.connect();
    for (let n = 0; n < 9; n++) {
      server.last.refuse();
      await clock.settle();
      const wait = part * Math.min(LONGEST, FIRST * 2 ** n);
      await comesAfter(wait);
    }
  });

  test("and never gives up", async () => {
    clock.random(1);
    socket.connect();
    for (let n = 0; n < 300; n++) {
      server.last.refuse();
      await clock.settle();
      await clock.advance(Math.min(LONGEST, FIRST * 2 ** n));
    }
    expect(server.connections).toHaveLength(301);
    expect(server.mostLive).toBe(1);
  });

  test("soon after a connection that was good, later and later after ones that were not", async () => {
    clock.random(1);
    socket.connect();
    for (let n = 0; n < 4; n++) {
      server.last.refuse();
      await clock.advance(FIRST * 2 ** n);
    }
    expect(server.connections).toHaveLength(5);
    server.last.welcome();
    await clock.settle();
    server.last.close(1011); // it was welcome, but not for long
    await clock.settle();
    await clock.advance(FIRST * 2 ** 4 - 1);
    expect(server.connections).toHaveLength(5);
    await clock.advance(1);
    expect(server.connections).toHaveLength(6);
    server.last.welcome();
    await clock.advance(GOOD + 1);
    server.last.close(1011);
    await clock.settle();
    await clock.advance(FIRST - 1);
    expect(server.connections).toHaveLength(6);
    await clock.advance(1);
    expect(server.connections).toHaveLength(7);
  });

  test("as if for the first time after each good connection, and an attempt that waited long is none", async () => {
    clock.random(1);
    socket.connect();
    server.last.refuse();
    await clock.advance(FIRST);
    await clock.advance(PATIENCE); // longer than a good connection, but it never was one
    await clock.advance(2 * FIRST - 1);
    expect(server.connections).toHaveLength(2);
    await clock.advance(1);
    expect(server.connections).toHaveLength(3);
  });

  test("at once when somebody looks, and not again when it would have been time", async () => {
    clock.random(1);
    socket.connect();
    server.last.refuse();
    await clock.settle();
    socket.wake(false);
    expect(server.connections).toHaveLength(2);
    await clock.advance(PATIENCE - 1);
    expect(server.connections).toHaveLength(2);
  });

  test("at once when somebody looks, and soon again when that was too early", async () => {
    clock.random(1);
    socket.connect();
    for (let n = 0; n < 6; n++) {
      server.last.refuse();
      await clock.settle();
      await clock.advance(Math.min(LONGEST, FIRST * 2 ** n));
    }
    server.last.refuse();
    await clock.settle();
    socket.wake(false);
    server.last.refuse();
    await clock.settle();
    await comesAfter(FIRST);
  });

  test("in its time when somebody asks something", async () => {
    clock.random(1);
    socket.connect();
    server.last.refuse();
    await clock.settle();
    socket.rouse();
    await clock.advance(FIRST - 1);
    expect(server.connections).toHaveLength(1);
    await clock.advance(1);
    expect(server.connections).toHaveLength(2);
  });

  test("with what it was told", async () => {
    await open();
    server.last.close(4103, "too slow");
    await clock.settle();
    expect(notes.losses).toEqual([{ code: 4103, reason: "too slow", meaning: "retry" }]);
    expect(socket.ready).toBe(false);
  });
});

describe("close codes", () => {
  test.each([1000, 1001, 1006, 1011, 1012, 1013, 4100, 4101, 4103, 4104, 4106, 4321])("%i: it comes back", async (code) => {
    clock.random(1);
    await open();
    server.last.close(code);
    await clock.advance(FIRST);
    expect(notes.losses).toMatchObject([{ code, meaning: "retry" }]);
    expect(server.connections).toHaveLength(2);
  });

  test.each([4501, 4502, 4503])("%i: the session is over, and it does not come back", async (code) => {
    await open();
    server.last.close(code, "over");
    await clock.advance(10 * 60_000);
    expect(notes.losses).toEqual([{ code, reason: "over", meaning: "over" }]);
    expect(server.connections).toHaveLength(1);
    expect(clock.pending).toBe(0);
  });

  test.each([1003, 1007, 1009, 4001, 4500, 4505, 4999])("%i: it stops", async (code) => {
    await open();
    server.last.close(code);
    await clock.advance(10 * 60_000);
    expect(notes.losses).toMatchObject([{ code, meaning: "stop" }]);
    expect(server.connections).toHaveLength(1);
    expect(clock.pending).toBe(0);
  });

  test.each([0, 0.5, 0.999])("4105: it comes back late (%d)", async (part) => {
    clock.random(part);
    await open();
    server.last.close(4105);
    await clock.settle();
    await comesAfter(CROWDED * (1 + part));
  });

  test("4102: it waits for a page of the next session, and then comes by itself", async () => {
    clock.random(0);
    await open();
    server.last.close(4102, "another login");
    await clock.settle();
    expect(notes.losses).toEqual([{ code: 4102, reason: "another login", meaning: "switched" }]);
    await clock.advance(SWITCH - 1);
    expect(server.connections).toHaveLength(1);
    await clock.advance(1);
    expect(server.connections).toHaveLength(2);
  });

  test("4102: it comes at once when that page is there", async () => {
    await open();
    server.last.close(4102);
    await clock.settle();
    socket.connect();
    expect(server.connections).toHaveLength(2);
    await clock.advance(SWITCH);
    expect(server.connections).toHaveLength(2);
  });

  test("4501 soon after 4102 may be a cookie that is on its way: it tries again", async () => {
    clock.random(0);
    await open();
    server.last.close(4102);
    await clock.advance(SWITCH);
    server.last.accept().close(4501);
    await clock.settle();
    expect(notes.losses[1]).toMatchObject({ code: 4501, meaning: "retry" });
    await clock.advance(1);
    expect(server.connections).toHaveLength(3);
    server.last.welcome("next");
    await clock.settle();
    expect(notes.welcomes[1]).toMatchObject({ session: "next" });
  });

  test("4501 later than that says that nobody is signed in", async () => {
    clock.random(0);
    await open();
    server.last.close(4102);
    await clock.advance(SWITCH);
    await clock.advance(SWITCHING - SWITCH);
    server.last.accept().close(4501);
    await clock.settle();
    expect(notes.losses[1]).toMatchObject({ code: 4501, meaning: "over" });
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(2);
  });

  test.each([4502, 4503, 4505])("%i soon after 4102 means what it says", async (code) => {
    clock.random(0);
    await open();
    server.last.close(4102);
    await clock.advance(SWITCH);
    server.last.accept().close(code);
    await clock.settle();
    expect(notes.losses[1]).toMatchObject({ code, meaning: code === 4505 ? "stop" : "over" });
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(2);
  });

  test("4501 without a 4102 is never tried again", async () => {
    await open();
    server.last.close(1012);
    await clock.until(() => server.connections.length === 2);
    server.last.accept().close(4501);
    await clock.advance(60_000);
    expect(notes.losses[1]).toMatchObject({ code: 4501, meaning: "over" });
    expect(server.connections).toHaveLength(2);
  });
});

describe("heartbeats", () => {
  const beats = (): number => server.last.got("heartbeat").length;
  const answering = (): void => {
    server.answer = ({ type }, connection) => {
      if (type === "heartbeat") connection.say({ type: "heartbeat_ack" });
    };
  };

  test("are sent one per interval", async () => {
    answering();
    await open();
    await clock.advance(HEARTBEAT - 1);
    expect(beats()).toBe(0);
    await clock.advance(1);
    expect(beats()).toBe(1);
    await clock.advance(10 * HEARTBEAT);
    expect(beats()).toBe(11);
    expect(notes.losses).toEqual([]);
    expect(server.connections).toHaveLength(1);
  });

  test("any message of the server's is a sign of life", async () => {
    await open();
    for (let n = 0; n < 10; n++) {
      server.last.say({ type: "set_props" });
      await clock.advance(HEARTBEAT / 4);
    }
    expect(notes.losses).toEqual([]);
  });

  test.each([0, 0.1, 0.49, 0.51, 0.9])("a connection that dies (%d intervals after a beat) is noticed within two", async (part) => {
    clock.random(0);
    answering();
    await open();
    await clock.advance(3 * HEARTBEAT + part * HEARTBEAT);
    expect(socket.ready).toBe(true);
    server.last.vanish();
    await clock.advance(2 * HEARTBEAT);
    expect(notes.losses[0]).toMatchObject({ code: 4106, meaning: "retry" });
    expect(server.connections[0]!.isLive).toBe(false);
    await clock.advance(1);
    expect(server.connections.length).toBeGreaterThan(1);
  });

  test("one that is slow is left in peace: it has an interval to answer", async () => {
    server.answer = ({ type }, connection) => {
      if (type === "heartbeat") setTimeout(() => connection.say({ type: "heartbeat_ack" }), HEARTBEAT - 10);
    };
    await open();
    await clock.advance(20 * HEARTBEAT);
    expect(notes.losses).toEqual([]);
  });

  test("a connection that may have died is asked when somebody looks, and given up soon", async () => {
    clock.random(0);
    answering();
    await open();
    await clock.advance(HEARTBEAT / 4);
    server.last.vanish();
    socket.wake(false);
    await clock.advance(DOUBT - 1);
    expect(notes.losses).toEqual([]);
    await clock.advance(1);
    expect(notes.losses).toMatchObject([{ meaning: "retry" }]);
    await clock.advance(1);
    expect(server.connections).toHaveLength(2);
  });

  test("one that answers goes on, however often somebody looks", async () => {
    answering();
    await open();
    for (let n = 0; n < 50; n++) {
      socket.wake(false);
      await clock.advance(700);
    }
    expect(notes.losses).toEqual([]);
    expect(server.connections).toHaveLength(1);
    const before = beats();
    await clock.advance(10 * HEARTBEAT);
    expect(beats() - before).toBeGreaterThanOrEqual(9);
    expect(beats() - before).toBeLessThanOrEqual(11);
  });

  test("a connection that is busy is not doubted: large answers may be on their way before the one to this", async () => {
    answering();
    await open();
    await clock.advance(HEARTBEAT / 4);
    server.last.vanish();
    socket.wake(true);
    await clock.advance(DOUBT);
    expect(notes.losses).toEqual([]);
    await clock.advance(HEARTBEAT - DOUBT);
    expect(notes.losses[0]).toMatchObject({ code: 4106 });
  });

  test("looking again and again does not keep a dead connection alive", async () => {
    clock.random(0);
    answering();
    await open();
    server.last.vanish();
    for (let n = 0; n < 20 && !notes.losses.length; n++) {
      socket.wake(false);
      await clock.advance(DOUBT - 1_000);
    }
    expect(notes.losses).toMatchObject([{ meaning: "retry" }]);
  });

  test("wait behind what a slow network has before them, while that gets on", async () => {
    clock.random(0);
    await open();
    server.last.say({ type: "heartbeat_ack" });
    const { socket: browser } = server.last;
    browser.bufferedAmount = 10_000_000;
    await clock.advance(HEARTBEAT); // the next one is sent, behind all this
    for (let left = 9; left > 0; left--) {
      browser.bufferedAmount = left * 1_000_000;
      await clock.advance(HEARTBEAT / 2);
      expect(notes.losses).toEqual([]);
    }
    await clock.advance(2 * HEARTBEAT);
    expect(notes.losses[0]).toMatchObject({ code: 4106 });
  });

  test("go out however much waits", async () => {
    answering();
    await open();
    server.last.socket.bufferedAmount = 2 * BUFFERED;
    await clock.advance(5 * HEARTBEAT);
    expect(beats()).toBe(5);
    expect(socket.send("{}")).toBe(false);
    expect(socket.send('{"type":"detach"}', true)).toBe(true);
    expect(server.last.got("detach")).toHaveLength(1);
  });

  test("are not sent where there are none", async () => {
    socket.connect();
    server.last.welcome(SESSION, 0);
    await clock.settle();
    socket.wake(false);
    await clock.advance(10 * 60_000);
    expect(server.last.frames).toEqual([]);
    expect(socket.ready).toBe(true);
    expect(notes.losses).toEqual([]);
  });

  test("go on with the next connection as with the first", async () => {
    clock.random(0);
    answering();
    await open();
    await clock.advance(3 * HEARTBEAT);
    server.greet = (connection) => void connection.welcome();
    server.last.close(1012);
    await clock.advance(1);
    await clock.advance(10 * HEARTBEAT);
    expect(notes.losses).toHaveLength(1);
    expect(server.connections).toHaveLength(2);
    expect(beats()).toBe(10);
    server.last.vanish();
    await clock.advance(2 * HEARTBEAT);
    expect(notes.losses[1]).toMatchObject({ code: 4106 });
  });

  test("end with their connection", async () => {
    clock.random(1);
    answering();
    await open();
    server.last.close(1012);
    await clock.advance(FIRST);
    await clock.advance(PATIENCE - 1);
    expect(server.connections).toHaveLength(2);
    expect(notes.losses).toHaveLength(1);
  });
});

describe("whatever happens, there is one socket at most", () => {
  const CODES = [1000, 1001, 1006, 1009, 1011, 1012, 4001, 4100, 4102, 4105, 4106, 4501, 4502, 4505];

  test.each(Array.from({ length: 60 }, (_, n) => n + 1))("in the course of events %i", async (seed) => {
    const dice = new Dice(seed);
    clock.random(dice.random);
    const answers = (): void => {
      server.answer = ({ type }, connection) => {
        if (type === "heartbeat") connection.say({ type: "heartbeat_ack" });
      };
    };
    answers();
    const any = (): (typeof server)["last"] => dice.pick(server.connections.slice(-3));
    const events: Record<string, () => void | Promise<void>> = {
      connect: () => socket.connect(),
      rouse: () => socket.rouse(),
      wake: () => socket.wake(dice.random() < 0.5),
      "close here": () => socket.close(),
      send: () => void socket.send('{"type":"x"}'),
      welcome: () => void any().welcome(),
      accept: () => void any().accept(),
      say: () => void any().say({ type: "set_props" }),
      refuse: () => any().refuse(),
      "close there": () => any().close(dice.pick(CODES)),
      vanish: () => any().vanish(),
      settle: () => clock.settle(),
      "some time": () => clock.advance(dice.below(3_000)),
      "much time": () => clock.advance(dice.below(70_000)),
    };
    socket.connect();
    const course: string[] = [];
    for (let step = 0; step < 60; step++) {
      const event = dice.pick(Object.keys(events));
      course.push(event);
      await events[event]!();
      const now = `seed ${seed}: ${course.join(", ")}`;
      expect(server.mostLive, now).toBe(1);
      // One timer for the next attempt, or those of the connection that there is.
      expect(clock.pending, now).toBeLessThanOrEqual(1);
      if (socket.ready) expect(server.live, now).toEqual([server.last]);
    }
    // And it is as good as new: unless told to stay away, it is there when the server is.
    server.greet = (connection) => void connection.welcome();
    socket.close();
    socket.connect();
    await clock.advance(1);
    expect(socket.ready, `seed ${seed}: ${course.join(", ")}`).toBe(true);
    expect(server.live).toHaveLength(1);
  });
});

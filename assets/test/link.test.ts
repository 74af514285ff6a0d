import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type FromPage, PING, UNANSWERED } from "../src/bridge";
import { AGAIN, HELLO, type Heard, Link } from "../src/link";
import { FakeClock, FakeLocks, FakeServer, FakeWorkers, pageOf, Realm, SESSION } from "./fakes";

let clock: FakeClock;
let server: FakeServer;
let locks: FakeLocks | undefined;
let workers: FakeWorkers;

/** One page with its link. */
class Page {
  readonly realm = new Realm();
  readonly heard: Heard[] = [];
  readonly link: Link;
  visible = true;

  constructor(readonly name: string) {
    const start = (): SharedWorker => new SharedWorker("/bridge.js", "dash-quart-ws /app/");
    this.link = this.realm.run(() => new Link(start, (heard) => this.heard.push(heard)));
  }

  open(fresh = true): this {
    this.realm.run(() =>
      this.link.open(fresh, () => ({
        renderer: this.name,
        url: "wss://dash.example/app/_dash-ws-callback",
        inactivity: 300_000,
        page: pageOf(SESSION),
        session: SESSION,
        visible: this.visible,
      })),
    );
    return this;
  }

  close(cached = false): void {
    this.realm.run(() => this.link.close(cached));
  }

  words(): string[] {
    return this.heard.map(({ t }) => t).filter((t) => t !== "message");
  }

  get updates(): number {
    return this.heard.filter((heard) => heard.t === "message" && heard.message.type === "set_props").length;
  }
}

function begin(withLocks: boolean): void {
  clock = new FakeClock();
  server = new FakeServer(clock);
  server.serve(() => SESSION);
  locks = withLocks ? new FakeLocks(clock) : undefined;
  workers = new FakeWorkers(clock, locks);
}

beforeEach(() => begin(true));
afterEach(() => clock.end());

const push = (): void => void server.last.say({ type: "set_props", payload: { componentId: "bar", props: {} } });
/** What a page has posted to workers, in order. */
const posted = (made: number): FromPage[] => workers.made[made]!.port.posted;

async function opened(...names: string[]): Promise<Page[]> {
  const pages = names.map((name) => new Page(name).open());
  await clock.settle();
  return pages;
}

describe("a page", () => {
  test("finds the bridge in the worker, and says who it is", async () => {
    const [page] = await opened("a");
    expect(page!.words()).toEqual(["up"]);
    expect(workers.running).toHaveLength(1);
    expect(posted(0)[0]).toMatchObject({ t: "open", fresh: true, renderer: "a", page: pageOf(SESSION), session: SESSION, visible: true });
    expect(server.last.got("attach")).toHaveLength(1);
  });

  test("shares it, and its socket, with the others", async () => {
    const pages = await opened("a", "b", "c");
    expect(workers.running).toHaveLength(1);
    expect(server.connections).toHaveLength(1);
    push();
    await clock.settle();
    expect(pages.map((page) => page.updates)).toEqual([1, 1, 1]);
  });

  test("posts to it in order", async () => {
    const [page] = await opened("a");
    for (const n of [1, 2, 3]) page!.link.post({ t: "send", id: "", text: `{"type":"x","n":${n}}`, isEndless: false });
    await clock.settle();
    expect(server.last.got("x").map((message) => (message as unknown as { n: number }).n)).toEqual([1, 2, 3]);
  });

  test("says that its lock is held when it is, not before, and only then", async () => {
    const page = new Page("a").open();
    expect(posted(0).map(({ t }) => t)).toEqual(["open"]);
    await clock.settle();
    const [open, held] = posted(0);
    expect(held).toEqual({ t: "held" });
    expect(locks!.held).toContain((open as { lock: string }).lock);
    expect(page.words()).toEqual(["up"]);
  });

  test("that crashes is detached", async () => {
    const [a, b] = await opened("a", "b");
    a!.realm.kill();
    await clock.settle();
    expect(server.last.got("detach")).toEqual([{ type: "detach", rendererId: "a" }]);
    push();
    await clock.settle();
    expect(b!.updates).toBe(1);
  });

  test("that goes says goodbye, gives its lock back, and hears no more", async () => {
    const [a] = await opened("a", "b");
    const { lock } = posted(0)[0] as { lock: string };
    a!.close();
    await clock.settle();
    expect(server.last.got("detach")).toEqual([{ type: "detach", rendererId: "a" }]);
    expect(locks!.held).not.toContain(lock);
    push();
    await clock.advance(60_000);
    expect(a!.updates).toBe(0);
    expect(a!.words()).toEqual(["up"]);
    a!.link.post({ t: "send", id: "x", text: '{"type":"x"}', isEndless: false });
    await clock.settle();
    expect(server.last.got("x")).toEqual([]);
  });

  test("that comes back is attached again, with another lock and as one that is not new", async () => {
    const [a] = await opened("a", "b");
    a!.close();
    await clock.settle();
    a!.visible = false;
    a!.open(false);
    await clock.settle();
    expect(a!.words()).toEqual(["up", "up"]);
    expect(posted(2)[0]).toMatchObject({ t: "open", fresh: false, visible: false });
    expect((posted(2)[0] as { lock: string }).lock).not.toBe((posted(0)[0] as { lock: string }).lock);
    expect(server.last.got("attach").map(({ rendererId }) => rendererId)).toEqual(["a", "b", "a"]);
  });

  test.each([true, false])("says where it goes (to the back-forward cache: %s)", async (cached) => {
    const [page] = await opened("a");
    page!.close(cached);
    expect(posted(0).at(-1)).toEqual({ t: "bye", cached });
    await clock.settle();
    expect(server.live).toHaveLength(cached ? 0 : 1);
  });

  test("that goes before it has its lock does not hold it afterwards", async () => {
    const page = new Page("a").open();
    page.close();
    await clock.settle();
    expect(locks!.held.filter((name) => name.includes("page"))).toEqual([]);
  });

  test("that goes before the worker has said hello starts nothing later", async () => {
    workers.mode = "silent";
    const page = new Page("a").open();
    page.close();
    await clock.advance(2 * HELLO);
    expect(server.connections).toEqual([]);
    expect(page.heard).toEqual([]);
  });
});

describe("where the worker does not start, the bridge runs in the page", () => {
  test.each(["throw", "fail"] as const)("at once (%s)", async (mode) => {
    workers.mode = mode;
    const [page] = await opened("a");
    expect(page!.words()).toEqual(["up"]);
    expect(server.connections).toHaveLength(1);
    push();
    await clock.advance(2 * HELLO);
    expect(page!.updates).toBe(1);
    expect(server.connections).toHaveLength(1);
  });

  test("there is no SharedWorker at all", async () => {
    const page = new Page("a");
    const link = new Link(
      () => {
        throw new TypeError("SharedWorker is not a constructor");
      },
      (heard) => page.heard.push(heard),
    );
    page.realm.run(() => link.open(true, () => ({ renderer: "a", url: "wss://x/", inactivity: 0, page: pageOf(SESSION), session: SESSION, visible: true })));
    await clock.settle();
    expect(page.words()).toEqual(["up"]);
  });

  test("after four seconds without hello", async () => {
    workers.mode = "silent";
    const page = new Page("a").open();
    await clock.advance(HELLO - 1);
    expect(server.connections).toEqual([]);
    await clock.advance(1);
    expect(page.words()).toEqual(["up"]);
    expect(posted(0).map(({ t }) => t)).toContain("bye");
  });

  test("each page has its own, and goes with it", async () => {
    workers.mode = "throw";
    const [a, b] = await opened("a", "b");
    expect(server.live).toHaveLength(2);
    a!.close();
    await clock.advance(5_000);
    expect(server.live).toHaveLength(1);
    expect(b!.words()).toEqual(["up"]);
  });

  test("it stays there: it is not taken for dead", async () => {
    workers.mode = "throw";
    const [page] = await opened("a");
    await clock.advance(10 * 60_000);
    expect(page!.words()).toEqual(["up"]);
    expect(server.connections).toHaveLength(1);
  });
});

describe("there are never two bridges", () => {
  test("hello in time: none starts in the page, also when the worker has an error later", async () => {
    const [page] = await opened("a");
    const worker = workers.made[0]!;
    await clock.advance(2 * HELLO);
    expect(server.connections).toHaveLength(1);
    worker.port.dispatchEvent(new Event("error"));
    expect(page!.words()).toEqual(["up"]);
    expect(server.connections).toHaveLength(1);
  });

  test("an error after hello changes nothing", async () => {
    let worker: SharedWorker | undefined;
    const heard: Heard[] = [];
    const link = new Link(
      () => (worker = new SharedWorker("/bridge.js", "x")),
      (word) => heard.push(word),
    );
    link.open(true, () => ({ renderer: "a", url: "wss://x/", inactivity: 0, page: pageOf(SESSION), session: SESSION, visible: true }));
    await clock.settle();
    (worker as unknown as { onerror: (event: Event) => void }).onerror(new Event("error"));
    await clock.advance(2 * HELLO);
    expect(heard.map(({ t }) => t).filter((t) => t !== "message")).toEqual(["up"]);
    expect(server.connections).toHaveLength(1);
  });

  test("a worker that says hello after the page has given up is not listened to", async () => {
    const [port, inside] = (() => {
      const { port1, port2 } = new MessageChannel();
      return [port1, port2];
    })();
    const heard: Heard[] = [];
    const said: FromPage[] = [];
    inside!.onmessage = ({ data }) => said.push(data);
    const link = new Link(
      () => Object.assign(new EventTarget(), { port, onerror: null }) as unknown as SharedWorker,
      (word) => heard.push(word),
    );
    link.open(true, () => ({ renderer: "a", url: "wss://x/", inactivity: 0, page: pageOf(SESSION), session: SESSION, visible: true }));
    await clock.advance(HELLO);
    inside!.postMessage({ t: "hello", lock: null });
    inside!.postMessage({ t: "up", max: 1 });
    await clock.advance(60_000);
    expect(heard.filter(({ t }) => t === "up")).toEqual([{ t: "up", max: 1_000_000 }]);
    expect(heard.map(({ t }) => t)).not.toContain("died");
    expect(said.map(({ t }) => t)).toEqual(["open", "held", "bye"]);
    expect(server.connections).toHaveLength(1);
  });
});

describe("when the worker dies", () => {
  test("each page notices, starts another one, and goes on", async () => {
    const pages = await opened("a", "b");
    workers.kill();
    await clock.advance(10);
    for (const page of pages) expect(page.words()).toEqual(["up", "died", "up"]);
    expect(workers.running).toHaveLength(1);
    expect(server.live).toHaveLength(1);
    expect(posted(2)[0]).toMatchObject({ t: "open", fresh: false });
    push();
    await clock.settle();
    expect(pages.map((page) => page.updates)).toEqual([1, 1]);
  });

  test("again and again, it is started once a second", async () => {
    const [page] = await opened("a");
    workers.kill();
    await clock.advance(10);
    for (let n = 0; n < 5; n++) {
      const before = workers.made.length;
      workers.kill();
      await clock.advance(AGAIN - 50);
      expect(workers.made).toHaveLength(before);
      await clock.advance(60);
      expect(workers.made).toHaveLength(before + 1);
      expect(page!.words().slice(-2)).toEqual(["died", "up"]);
    }
  });

  test("and does not start any more, the bridge runs in the page", async () => {
    const [page] = await opened("a");
    workers.mode = "fail";
    workers.kill();
    await clock.advance(10);
    expect(page!.words()).toEqual(["up", "died", "up"]);
    expect(server.live).toHaveLength(1);
    await clock.advance(60_000);
    expect(page!.words()).toEqual(["up", "died", "up"]);
  });

  test("a page that has gone is not told, and starts nothing", async () => {
    const [page] = await opened("a");
    page!.close();
    workers.kill();
    await clock.advance(60_000);
    expect(page!.words()).toEqual(["up"]);
    expect(workers.made).toHaveLength(1);
  });

  test("a page that goes right then starts nothing", async () => {
    const [page] = await opened("a");
    for (let n = 0; n < 2; n++) {
      workers.kill();
      await clock.advance(n ? AGAIN / 2 : 10);
    }
    page!.close();
    await clock.advance(60_000);
    expect(workers.running).toEqual([]);
    expect(workers.made).toHaveLength(2);
  });

  test("what is said meanwhile is lost, not an error", async () => {
    const [page] = await opened("a");
    for (let n = 0; n < 2; n++) {
      workers.kill();
      await clock.advance(10);
    }
    page!.link.post({ t: "send", id: "x", text: "{}", isEndless: false });
    await clock.advance(AGAIN);
    expect(page!.words().at(-1)).toBe("up");
    expect(server.last.got("x")).toEqual([]);
  });
});

describe("where there are no locks", () => {
  beforeEach(() => {
    clock.end();
    begin(false);
  });

  test("page and bridge stay together by asking and answering", async () => {
    const [page] = await opened("a");
    await clock.advance(20 * PING);
    expect(page!.words()).toEqual(["up"]);
    expect(posted(0).filter(({ t }) => t === "pong").length).toBeGreaterThanOrEqual(19);
    expect(server.last.got("detach")).toEqual([]);
  });

  test("a page that crashes is detached within seconds", async () => {
    const [a] = await opened("a", "b");
    a!.realm.kill();
    await clock.advance((UNANSWERED + 2) * PING);
    expect(server.last.got("detach")).toEqual([{ type: "detach", rendererId: "a" }]);
  });

  test("pages notice within seconds that the worker has died, and start another", async () => {
    const pages = await opened("a", "b");
    await clock.advance(3 * PING);
    workers.kill();
    await clock.advance(2 * PING);
    expect(pages[0]!.words()).toEqual(["up"]);
    await clock.advance((UNANSWERED + 2) * PING);
    for (const page of pages) expect(page.words()).toEqual(["up", "died", "up"]);
    await clock.advance(20 * PING);
    for (const page of pages) expect(page.words()).toEqual(["up", "died", "up"]);
    expect(workers.running).toHaveLength(1);
  });

  test("a page that comes and goes is as patient as ever", async () => {
    const [page] = await opened("a");
    for (let n = 0; n < 20; n++) {
      page!.close(true);
      await clock.advance(100);
      page!.open(false);
      await clock.settle();
    }
    await clock.advance(20 * PING);
    expect(page!.words()).not.toContain("died");
  });

  test("a page that has gone does not wait for answers any more", async () => {
    const [page] = await opened("a");
    page!.close();
    workers.kill();
    await clock.advance(60_000);
    expect(page!.words()).toEqual(["up"]);
    expect(workers.made).toHaveLength(1);
  });
});

test("where locks are blocked, it works without", async () => {
  locks!.isBlocked = true;
  const [page] = await opened("a");
  await clock.advance(20 * PING);
  expect(page!.words()).toEqual(["up"]);
  workers.kill();
  await clock.advance(20 * PING);
  expect(page!.words()).toEqual(["up", "died", "up"]);
});

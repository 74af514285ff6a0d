/** A page with the whole chain behind it: Dash's renderer, this page's half of the bridge, the worker with the other half, the server. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { MARK } from "../src/fetch";
import { HELLO } from "../src/link";
import { AGE, type Answer, FALLBACK } from "../src/requests";
import { FIRST } from "../src/socket";
import { DELAY } from "../src/status";
import type { Message } from "../src/wire";
import { FakeClock, FakeLocks, FakeRenderer, FakeServer, FakeWorkers, pageOf, SESSION } from "./fakes";
import { keepListenersApart } from "./listeners";

const SETTINGS = {
  prefix: "/app/",
  login: "/login",
  page: pageOf(SESSION),
  session: SESSION as string | null,
  bridge: true,
  status: true,
};
const CONFIG = { csrf_token_name: "_csrf", csrf_header_name: "X-Csrf" };
const ok = (value: unknown): Answer => ({ status: "ok", data: { multi: true, response: { o: { p: value } } } });

keepListenersApart();

let clock: FakeClock;
let server: FakeServer;
let workers: FakeWorkers;
let renderer: FakeRenderer;
let replace: ReturnType<typeof vi.fn<(url: string) => void>>;
let reload: ReturnType<typeof vi.fn<() => void>>;
/** As whom the browser's cookie is taken by the server. */
let cookie: string | null;
/** What the server does over HTTP. */
let http: (path: string, init: RequestInit | undefined) => Response;
const fetched = vi.fn<(url: string, init?: RequestInit) => void>();
let events: Array<[string, unknown]>;

beforeEach(() => {
  clock = new FakeClock();
  server = new FakeServer(clock);
  workers = new FakeWorkers(clock, new FakeLocks(clock));
  cookie = SESSION;
  server.serve(() => cookie);
  events = [];
  http = () => {
    throw new TypeError("Failed to fetch");
  };
  fetched.mockReset();
  vi.stubGlobal("fetch", async (url: string, init?: RequestInit) => {
    fetched(String(url), init);
    return http(new URL(url, location.href).pathname, init);
  });
  for (const type of ["open", "close", "session-ended"]) {
    addEventListener(`dash-ws:${type}`, (event) => events.push([type, (event as CustomEvent).detail]));
  }
  see(true);
});
afterEach(() => {
  clock.end();
  vi.resetModules();
});

/** Load the page; the renderer begins, unless it `waits` for its first callback over the websocket, as it does from Dash 4.5 on. */
async function load(settings: Partial<typeof SETTINGS> = {}, waits = false): Promise<void> {
  document.head.innerHTML = '<meta name="dash-quart-ws"><script id="_dash-config" type="application/json"></script>';
  document.querySelector("meta")!.content = JSON.stringify({ ...SETTINGS, ...settings });
  document.querySelector("script")!.textContent = JSON.stringify(CONFIG);
  Object.defineProperty(document, "currentScript", { configurable: true, get: () => ({ src: "https://dash.example/app/bridge.1f.js" }) });
  clock.atEnd(() => delete (document as { currentScript?: unknown }).currentScript);
  vi.resetModules();
  const { ways } = await import("../src/leave");
  replace = vi.spyOn(ways, "replace").mockReturnValue() as typeof replace;
  reload = vi.spyOn(ways, "reload").mockReturnValue() as typeof reload;
  (await import("../src/page")).page();
  renderer = new FakeRenderer("tab");
  if (!waits) void renderer.connect();
  await clock.settle();
}

/** The server answers callbacks. */
function answering(run: (request: Message) => Answer | null = ({ payload }) => ok(payload.inputs?.[0]?.value)): void {
  server.serve(() => cookie, run);
}

/** Ask for a callback; what it comes to is in the box, in time. */
function ask(value: unknown = 1): { answer?: Answer } {
  const box: { answer?: Answer } = {};
  const inputs = [{ id: "i", property: "p", value }];
  void renderer.call({ output: "o.p", outputs: { id: "o", property: "p" }, inputs }).then((answer) => (box.answer = answer));
  return box;
}

const PERSISTENT = { output: "", outputs: null, inputs: [], changedPropIds: [] };
const requests = (): Message[] => server.connections.flatMap((connection) => connection.got("callback_request"));
const shown = (): HTMLElement | null => document.querySelector(".dash-ws-status");
const posts = (): string[] => fetched.mock.calls.map(([url]) => url).filter((url) => url.includes("_dash-update-component"));

function see(isVisible: boolean): void {
  Object.defineProperty(document, "hidden", { configurable: true, value: !isVisible });
  document.dispatchEvent(new Event("visibilitychange"));
}

function turn(type: "pagehide" | "pageshow", persisted: boolean): void {
  dispatchEvent(Object.assign(new Event(type), { persisted }));
}

/** The network is gone, and says so. */
function cut(): void {
  server.greet = (connection) => connection.refuse();
  for (const connection of server.live) connection.close(1006);
}

describe("a renderer that waits for its first callback over the websocket", () => {
  test("opens none before that", async () => {
    answering();
    await load({}, true);
    expect(workers.made).toEqual([]);
    expect(server.connections).toEqual([]);
    expect(shown()).toBeNull();
  });

  test("gets the answer to that callback, and what is pushed from then on", async () => {
    answering();
    await load({}, true);
    const box = ask(7);
    await clock.settle();
    expect(box.answer).toEqual(ok(7));
    expect(server.connections).toHaveLength(1);
    server.last.say({ type: "set_props", payload: { componentId: "a", props: { title: "pushed" } } });
    await clock.settle();
    expect(renderer.drawn.flat()).toContainEqual({ componentId: "a", props: { title: "pushed" } });
  });

  test("finds a page that is over, over when it comes to it", async () => {
    server.greet = (connection) => connection.accept().close(4501, "not logged in");
    await load({}, true);
    expect(replace).not.toHaveBeenCalled();
    const box = ask();
    await clock.settle();
    expect(box.answer?.status).toBe("prevent_update");
    expect(replace).toHaveBeenCalled();
  });
});

// ------------------------------------------------------------------------------------------------------------ as it should be

describe("a page that is loaded", () => {
  test("starts the bridge's worker, of its own app, from its own script", async () => {
    await load();
    expect(workers.made.map(({ url, name }) => ({ url, name }))).toEqual([
      { url: "https://dash.example/app/bridge.1f.js", name: "dash-quart-ws /app/" },
    ]);
  });

  test("is connected, as far as Dash's renderer goes, before there is a socket", async () => {
    server.greet = () => {};
    await load();
    expect(renderer.said).toEqual([{ type: "connected" }]);
  });

  test("is attached with its page token, to the URL that Dash's renderer gives", async () => {
    await load();
    expect(server.last.url).toBe("wss://dash.example/app/_dash-ws-callback");
    expect(server.last.got("attach")).toEqual([{ type: "attach", rendererId: "tab", payload: { page: pageOf(SESSION) } }]);
    expect(events).toEqual([["open", null]]);
  });

  test.each([
    [30_000, 4],
    [0, 0],
  ])("sends heartbeats as the server says: each %i ms", async (heartbeat, times) => {
    server.heartbeat = heartbeat;
    await load();
    await clock.advance(4 * 30_000);
    expect(server.last.got("heartbeat")).toHaveLength(times);
  });

  test("starts nothing while it is only being prepared, and waits for nobody then", async () => {
    Object.defineProperty(document, "prerendering", { configurable: true, value: true });
    clock.atEnd(() => delete (document as { prerendering?: boolean }).prerendering);
    answering();
    await load();
    const box = ask("early");
    await clock.advance(2 * HELLO);
    expect(workers.made).toEqual([]);
    expect(server.connections).toEqual([]);
    document.dispatchEvent(new Event("prerenderingchange"));
    await clock.settle();
    expect(box.answer).toEqual(ok("early"));
    expect(server.last.got("attach")).toHaveLength(1);
  });

  test("writes nothing to the console, whatever happens", async () => {
    const said = (["log", "info", "warn", "error", "debug"] as const).map((level) => vi.spyOn(console, level));
    await load();
    ask();
    cut();
    await clock.advance(60_000);
    workers.kill();
    await clock.advance(60_000);
    for (const level of said) expect(level).not.toHaveBeenCalled();
  });
});

describe("callbacks", () => {
  test("go over the socket, as Dash's renderer gave them, and come back", async () => {
    answering();
    await load();
    const first = ask("a");
    const second = ask("b");
    await clock.settle();
    expect(first.answer).toEqual(ok("a"));
    expect(second.answer).toEqual(ok("b"));
    const inputs = [{ id: "i", property: "p", value: "a" }];
    expect(requests()[0]).toEqual({
      type: "callback_request",
      rendererId: "tab",
      requestId: "tab-1",
      payload: { output: "o.p", outputs: { id: "o", property: "p" }, inputs },
    });
    expect(fetched).not.toHaveBeenCalled();
  });

  test("that are asked before there is a socket wait for it", async () => {
    server.greet = () => {};
    await load();
    const box = ask("early");
    await clock.settle();
    expect(box.answer).toBeUndefined();
    answering();
    server.last.close(1012);
    await clock.advance(FIRST);
    expect(box.answer).toEqual(ok("early"));
    expect(requests()).toHaveLength(1);
  });

  test("get an error that names them as their answer", async () => {
    await load();
    const box = ask();
    await clock.settle();
    server.last.say({ type: "error", rendererId: "tab", requestId: "tab-1", payload: { message: "Bad message" } });
    await clock.settle();
    expect(box.answer).toEqual({ status: "error", message: "Bad message" });
  });

  test("that stream are drawn as they go, in order", async () => {
    await load();
    ask();
    await clock.settle();
    const update = (value: number): Message => ({ type: "set_props", rendererId: "tab", payload: { componentId: "bar", props: { value } } });
    server.last.say(update(1)).say(update(2), update(3));
    await clock.settle();
    expect(renderer.drawn).toEqual([[update(1).payload], [update(2).payload, update(3).payload]]);
  });

  test("that ask what the page has are told", async () => {
    await load();
    renderer.props = { text: { value: "typed" } };
    server.last.say({ type: "get_props_request", rendererId: "tab", requestId: "q", payload: { componentId: "text", properties: ["value"] } });
    await clock.settle();
    expect(server.last.got("get_props_response")).toEqual([
      { type: "get_props_response", rendererId: "tab", requestId: "q", payload: { value: "typed" } },
    ]);
  });

  test("that were in flight when the socket broke are answered with an error", async () => {
    await load();
    const box = ask();
    await clock.settle();
    cut();
    await clock.settle();
    expect(box.answer).toMatchObject({ status: "error", message: expect.stringContaining("lost") });
    answering();
    await clock.advance(60_000);
    expect(requests()).toHaveLength(1);
  });

  test("that are asked while it is gone for a moment are run once, when it is back", async () => {
    await load();
    cut();
    await clock.settle();
    const boxes = ["a", "b", "c"].map(ask);
    answering();
    await clock.advance(FIRST);
    expect(boxes.map(({ answer }) => answer)).toEqual(["a", "b", "c"].map(ok));
    expect(requests()).toHaveLength(3);
  });

  test("that were in flight when the worker died are answered with an error; the page goes on", async () => {
    await load();
    const box = ask();
    await clock.settle();
    workers.kill();
    await clock.advance(10);
    expect(box.answer).toMatchObject({ status: "error" });
    answering();
    const next = ask("next");
    await clock.advance(10);
    expect(next.answer).toEqual(ok("next"));
    expect(server.live).toHaveLength(1);
  });
});

describe("persistent callbacks", () => {
  test("are started again when the server has lost them, and the page never sees them end", async () => {
    await load();
    renderer.persistent.push(PERSISTENT);
    let ended = 0;
    void renderer.call(PERSISTENT).then(() => ended++);
    await clock.settle();
    cut();
    await clock.settle();
    expect(ended).toBe(0);
    server.serve(() => cookie);
    await clock.advance(FIRST);
    expect(renderer.restarts).toBe(1);
    expect(server.last.got("callback_request")).toHaveLength(1);
    await clock.advance(10 * AGE);
    expect(server.last.got("callback_request")).toHaveLength(1);
  });

  test("are sent again while another request waits, which is answered", async () => {
    await load();
    renderer.persistent.push(PERSISTENT);
    void renderer.call(PERSISTENT);
    await clock.settle();
    cut();
    await clock.settle();
    const box = ask("waits");
    answering(({ payload }) => (payload.inputs.length ? ok("done") : null));
    await clock.advance(FIRST);
    expect(box.answer).toEqual(ok("done"));
    expect(renderer.restarts).toBe(0);
    expect(server.last.got("callback_request").map(({ requestId }) => requestId).sort()).toEqual(["tab-1", "tab-2"]);
  });

  test("are started again when the worker has died", async () => {
    await load();
    renderer.persistent.push(PERSISTENT);
    void renderer.call(PERSISTENT);
    await clock.settle();
    workers.kill();
    await clock.advance(10);
    expect(renderer.restarts).toBe(1);
    expect(server.last.got("callback_request")).toHaveLength(1);
  });

  test("never go over HTTP", async () => {
    await load();
    cut();
    http = () => new Response(null, { status: 204 });
    void renderer.call(PERSISTENT);
    await clock.advance(10 * AGE);
    expect(posts()).toEqual([]);
  });
});

// ------------------------------------------------------------------------------------------------------------ HTTP

describe("when the socket does not come, callbacks go over HTTP", () => {
  const works = (answer: () => Response) => (path: string) =>
    path.endsWith("/session") ? new Response(null, { status: 204 }) : answer();

  async function overHttp(answer: () => Response): Promise<{ answer?: Answer }> {
    await load();
    cut();
    await clock.settle();
    http = works(answer);
    const box = ask();
    await clock.advance(FALLBACK + 1_000);
    return box;
  }

  test("as Dash's renderer posts them, with the page token", async () => {
    const box = await overHttp(() => Response.json({ multi: true, response: { o: { p: 2 } } }));
    expect(box.answer).toEqual(ok(2));
    const [url, init] = fetched.mock.calls.at(-1)!;
    expect(url).toBe(`https://dash.example/app/_dash-update-component?endId=${encodeURIComponent(SETTINGS.page)}`);
    expect(init).toMatchObject({ method: "POST" });
    expect(init!.credentials ?? "same-origin").toBe("same-origin");
    expect(new Headers(init!.headers).get("content-type")).toBe("application/json");
    expect(JSON.parse(init!.body as string)).toMatchObject({ output: "o.p", inputs: [{ value: 1 }] });
    expect(requests()).toEqual([]);
  });

  test("with Dash's CSRF header, as it is in the cookie now", async () => {
    document.cookie = "x_csrf=no";
    document.cookie = "_csrf=t%20ok=en";
    await overHttp(() => new Response(null, { status: 204 }));
    expect(new Headers(fetched.mock.calls.at(-1)![1]!.headers).get("x-csrf")).toBe("t ok=en");
    document.cookie = "_csrf=; max-age=0";
    document.cookie = "x_csrf=; max-age=0";
  });

  test("without that header where there is no such cookie", async () => {
    await overHttp(() => new Response(null, { status: 204 }));
    expect(new Headers(fetched.mock.calls.at(-1)![1]!.headers).has("x-csrf")).toBe(false);
  });

  test.each([
    ["no update", () => new Response(null, { status: 204 }), { status: "prevent_update" }],
    ["an error in words", () => Response.json({ error: "Callback failed (error 1f)" }, { status: 500 }), { status: "error", message: "Callback failed (error 1f)" }],
    ["an error page", () => new Response("<html>", { status: 502, statusText: "Bad Gateway" }), { status: "error", message: "502 Bad Gateway" }],
    ["a page where there should be an answer", () => new Response("<html>", { status: 200 }), { status: "error", message: "The server cannot be reached." }],
  ])("%s is the answer", async (_, answer, expected) => {
    expect((await overHttp(answer)).answer).toEqual(expected);
  });

  test("only when the server says that this works: else they wait, and get an error in the end", async () => {
    await load();
    cut();
    await clock.settle();
    const box = ask();
    await clock.advance(AGE - 1);
    expect(box.answer).toBeUndefined();
    expect(fetched.mock.calls.length).toBeGreaterThan(5);
    expect(posts()).toEqual([]);
    await clock.advance(2_000);
    expect(box.answer).toEqual({ status: "error", message: "The server cannot be reached." });
  });

  test.each([404, 500, 503])("not when the server answers %i to that", async (status) => {
    await load();
    cut();
    await clock.settle();
    http = () => new Response(null, { status });
    ask();
    await clock.advance(AGE - 1);
    expect(posts()).toEqual([]);
    expect(replace).not.toHaveBeenCalled();
  });

  test("also of a page that was made for nobody, while its visitor is nobody", async () => {
    cookie = null;
    await load({ session: null, page: pageOf(null) });
    cut();
    await clock.settle();
    http = (path) => new Response(null, { status: path.endsWith("/session") ? 401 : 204 });
    const box = ask();
    await clock.advance(FALLBACK + 1_000);
    expect(box.answer).toEqual({ status: "prevent_update" });
    expect(replace).not.toHaveBeenCalled();
  });

  test("and over the socket again when that is there", async () => {
    await overHttp(() => new Response(null, { status: 204 }));
    answering();
    await clock.until(() => server.live.length === 1 && events.at(-1)![0] === "open");
    const before = posts().length;
    const box = ask("again");
    await clock.settle();
    expect(box.answer).toEqual(ok("again"));
    expect(posts()).toHaveLength(before);
  });

  test("and 401 takes the page to the login, also when it answers a callback", async () => {
    const box = await overHttp(() => Response.json({ error: "not logged in" }, { status: 401, headers: { [MARK]: "required" } }));
    expect(box.answer).toMatchObject({ status: "error" });
    expect(replace).toHaveBeenCalledTimes(1);
  });

  test("a large one at once", async () => {
    answering();
    await load();
    http = works(() => new Response(null, { status: 204 }));
    const large = ask("x".repeat(1_100_000));
    const small = ask("small");
    await clock.settle();
    expect(small.answer).toEqual(ok("small"));
    await clock.settle();
    expect(large.answer).toEqual({ status: "prevent_update" });
    expect(posts()).toHaveLength(1);
    expect(requests()).toHaveLength(1);
  });

  test("all of them, when the server wants no socket", async () => {
    await load();
    http = works(() => new Response(null, { status: 204 }));
    server.last.close(4505, "abuse");
    await clock.settle();
    const box = ask();
    await clock.settle();
    expect(box.answer).toEqual({ status: "prevent_update" });
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(1);
    expect(shown()!.dataset["state"]).toBe("stopped");
  });
});

// ------------------------------------------------------------------------------------------------------------ sessions

describe("when the session is over", () => {
  test.each([4501, 4502, 4503])("the page goes to the login at once, and nothing stays open (%i)", async (code) => {
    await load();
    const flying = ask("flying");
    await clock.settle();
    server.last.close(code, "why");
    await clock.settle();
    expect(replace.mock.calls).toEqual([["https://dash.example/login?next=%2Fapp%2Freport"]]);
    expect(flying.answer).toBeDefined();
    expect(events).toEqual([
      ["open", null],
      ["close", { code, reason: "why" }],
      ["session-ended", { code, reason: "why" }],
    ]);
  });

  test("nothing that the page still asks is sent, whoever signs in next", async () => {
    await load();
    const before = ask("before");
    await clock.settle();
    server.last.close(4501, "logged out");
    await clock.settle();
    cookie = "bob";
    answering();
    const after = ask("after");
    await clock.advance(60_000);
    expect(after.answer).toEqual({ status: "error", message: expect.stringMatching(/signed out/i) });
    expect(before.answer).toBeDefined();
    expect(requests()).toHaveLength(1);
    expect(posts()).toEqual([]);
  });

  test("a page in the background goes, too", async () => {
    await load();
    see(false);
    server.last.close(4501);
    await clock.settle();
    expect(replace).toHaveBeenCalledTimes(1);
  });

  test("a page that is itself on its way is left alone", async () => {
    await load();
    dispatchEvent(new Event("beforeunload"));
    server.last.close(4501);
    await clock.settle();
    expect(replace).not.toHaveBeenCalled();
  });

  test("a page that was made for nobody stays, and goes on over HTTP", async () => {
    cookie = null;
    await load({ session: null, page: pageOf(null) });
    server.last.close(4501, "not logged in");
    http = () => new Response(null, { status: 204 });
    await clock.settle();
    const box = ask();
    await clock.settle();
    expect(box.answer).toEqual({ status: "prevent_update" });
    expect(replace).not.toHaveBeenCalled();
    expect(events.map(([type]) => type)).toEqual(["open", "close"]);
  });
});

describe("when somebody else has signed in", () => {
  test("the page is loaded again, and what it asked meanwhile is never sent", async () => {
    await load();
    cookie = "bob";
    answering();
    server.last.close(4102, "another login");
    await clock.settle();
    const box = ask("alice's click");
    await clock.advance(10_000);
    expect(reload).toHaveBeenCalledTimes(1);
    expect(replace).not.toHaveBeenCalled();
    expect(box.answer).toBeDefined();
    expect(requests()).toEqual([]);
    expect(posts()).toEqual([]);
    expect(events.map(([type]) => type)).toEqual(["open", "close"]);
  });

  test("a page that has just been loaded for them gets their connection", async () => {
    await load();
    cookie = "bob";
    answering();
    const { name, url } = workers.made[0]!;
    expect([name, url]).not.toContain("bob");
    await load({ session: "bob", page: pageOf("bob") });
    const box = ask("bob's click");
    await clock.settle();
    expect(box.answer).toEqual(ok("bob's click"));
    expect(server.live).toHaveLength(1);
    expect(server.last.got("attach").map(({ payload }) => payload.page)).toEqual([pageOf("bob")]);
  });
});

// ------------------------------------------------------------------------------------------------------------ what people see

describe("the page says how its connection is", () => {
  test("not while it is being loaded, and all is well", async () => {
    await load();
    await clock.advance(60_000);
    expect(shown()).toBeNull();
  });

  test("when there is none for a second, until it is back", async () => {
    await load();
    cut();
    await clock.settle();
    await clock.advance(DELAY - 1);
    expect(shown()).toBeNull();
    await clock.advance(1);
    expect(shown()).toMatchObject({ className: "dash-ws-status", textContent: "Reconnecting…" });
    expect(shown()!.dataset["state"]).toBe("reconnecting");
    server.serve(() => cookie);
    await clock.until(() => shown() === null);
    expect(events.at(-1)![0]).toBe("open");
  });

  test("when the first connection does not come", async () => {
    server.greet = () => {};
    await load();
    await clock.advance(DELAY);
    expect(shown()!.dataset["state"]).toBe("connecting");
  });

  test("when the session is over", async () => {
    await load();
    server.last.close(4501);
    await clock.advance(DELAY);
    expect(shown()!.dataset["state"]).toBe("signed-out");
  });

  test("not when nobody sees it, and at leisure when somebody does", async () => {
    await load();
    see(false);
    cut();
    await clock.advance(60_000);
    expect(shown()).toBeNull();
    see(true);
    await clock.advance(DELAY);
    expect(shown()!.dataset["state"]).toBe("reconnecting");
    see(false);
    expect(shown()).toBeNull();
  });

  test("never, where that is off; the events come all the same", async () => {
    await load({ status: false });
    cut();
    await clock.advance(60_000);
    expect(shown()).toBeNull();
    expect(events.slice(0, 2)).toEqual([
      ["open", null],
      ["close", { code: 1006, reason: "" }],
    ]);
  });

  test("once for each loss, however often it fails to come back", async () => {
    await load();
    cut();
    await clock.advance(10 * 60_000);
    expect(server.connections.length).toBeGreaterThan(5);
    expect(events.map(([type]) => type)).toEqual(["open", "close"]);
    server.serve(() => cookie);
    await clock.advance(60_000);
    expect(events.map(([type]) => type)).toEqual(["open", "close", "open"]);
  });

  test("also when its worker dies", async () => {
    await load();
    workers.kill();
    await clock.advance(10);
    expect(events.map(([type]) => type)).toEqual(["open", "close", "open"]);
    expect(events[1]![1]).toMatchObject({ code: 1006 });
  });
});

// ------------------------------------------------------------------------------------------------------------ coming, going

describe("a page that goes", () => {
  test("is detached, and its socket is closed", async () => {
    await load();
    turn("pagehide", false);
    await clock.advance(5_000);
    expect(server.last.got("detach")).toHaveLength(1);
    expect(server.live).toEqual([]);
    await clock.advance(60_000);
    expect(server.connections).toHaveLength(1);
  });

  test("into the back-forward cache is, too; when it comes back it is attached again", async () => {
    answering((request) => (request.payload.inputs[0].value === "flying" ? null : ok("back")));
    await load();
    const flying = ask("flying");
    await clock.settle();
    turn("pagehide", true);
    await clock.settle();
    expect(server.live).toEqual([]);
    expect(server.last.got("detach")).toHaveLength(1);
    http = () => new Response(null, { status: 204 });
    turn("pageshow", true);
    await clock.settle();
    expect(flying.answer).toMatchObject({ status: "error" });
    expect(server.last.got("attach")).toHaveLength(1);
    const box = ask("again");
    await clock.settle();
    expect(box.answer).toEqual(ok("back"));
    expect(server.live).toHaveLength(1);
    expect(events.map(([type]) => type)).toEqual(["open", "close", "open"]);
  });

  test("and comes back when its session is over, goes to the login", async () => {
    await load();
    turn("pagehide", true);
    await clock.advance(5_000);
    server.greet = (connection) => connection.accept().close(4501, "not logged in");
    http = () => new Response(null, { status: 401 });
    turn("pageshow", true);
    await clock.advance(5_000);
    expect(replace).toHaveBeenCalledTimes(1);
  });

  test("and comes back when somebody else is signed in, is loaded again", async () => {
    await load();
    turn("pagehide", true);
    await clock.advance(5_000);
    cookie = "bob";
    http = () => new Response(null, { status: 409 });
    turn("pageshow", true);
    await clock.advance(5_000);
    expect(reload).toHaveBeenCalledTimes(1);
    expect(server.last.got("attach")).toEqual([]);
    expect(server.connections).toHaveLength(2); // it is the page that is old, not their connection
  });

  test("a page that is shown for the first time is attached once", async () => {
    await load();
    turn("pageshow", false);
    await clock.settle();
    expect(server.last.got("attach")).toHaveLength(1);
    expect(events.map(([type]) => type)).toEqual(["open"]);
  });
});

describe("a socket that is gone comes back at once", () => {
  test("when the network is back", async () => {
    clock.random(1);
    await load();
    cut();
    await clock.settle();
    server.serve(() => cookie);
    dispatchEvent(new Event("online"));
    await clock.settle();
    expect(server.live).toHaveLength(1);
  });

  test("when the page is shown, not when it is hidden", async () => {
    clock.random(1);
    await load();
    cut();
    await clock.settle();
    server.serve(() => cookie);
    see(false);
    await clock.settle();
    expect(server.live).toEqual([]);
    see(true);
    await clock.settle();
    expect(server.live).toHaveLength(1);
  });

  test("after it has rested, when the page is shown or asks something", async () => {
    answering();
    await load();
    see(false);
    await clock.settle();
    await clock.advance(300_000);
    expect(server.live).toEqual([]);
    const box = ask("awake");
    await clock.settle();
    expect(box.answer).toEqual(ok("awake"));
    await clock.advance(300_000);
    expect(server.live).toEqual([]);
    see(true);
    await clock.settle();
    expect(server.live).toHaveLength(1);
  });

  test("a page that was loaded in the background lets it rest, too", async () => {
    see(false);
    await load();
    await clock.advance(300_000);
    expect(server.live).toEqual([]);
  });
});

describe("where the worker does not start, the page does its work", () => {
  test.each([
    ["there are no shared workers", () => vi.stubGlobal("SharedWorker", undefined), 0],
    ["it may not be made", () => void (workers.mode = "throw"), 0],
    ["its script does not load", () => void (workers.mode = "fail"), 0],
    ["it says nothing", () => void (workers.mode = "silent"), HELLO],
  ])("%s: callbacks, streaming, push and logout", async (_, prepare, after) => {
    prepare();
    answering();
    await load();
    await clock.advance(after);
    const box = ask("here");
    await clock.settle();
    expect(box.answer).toEqual(ok("here"));
    server.last.say({ type: "set_props", payload: { componentId: "bar", props: { value: 1 } } });
    await clock.settle();
    expect(renderer.drawn).toHaveLength(1);
    expect(server.connections).toHaveLength(1);
    server.last.close(4501, "logged out");
    await clock.settle();
    expect(replace).toHaveBeenCalledTimes(1);
  });
});

test("what the renderer says of its own is no reason to do anything", async () => {
  await load();
  const { port } = renderer.worker!;
  for (const type of ["tab_visible", "disconnect", "news"]) port.postMessage({ type, rendererId: "tab" });
  port.close();
  await clock.settle();
  expect(server.last.frames.filter((frame) => !frame.includes("heartbeat"))).toHaveLength(1);
  expect(events.map(([type]) => type)).toEqual(["open"]);
});

// -------------------------------------------------------------------------------- what a callback does to the browser

describe("a callback that does something to the browser", () => {
  const EFFECTS = "/app/_dash-quart-ws/effects";
  const NEXT = "5e5510";
  const effects = { ...ok(1), effects: "5ec1" };
  /** What the server answers to whoever fetches effects. */
  const fetching = (answer: () => Response): void => {
    http = (path, init) => {
      if (path !== EFFECTS) throw new TypeError("Failed to fetch");
      expect(JSON.parse(String(init?.body))).toEqual({ id: "5ec1" });
      return answer();
    };
  };
  /** The effects of a login: the browser's cookie is another one, and the socket of the one before is closed. */
  const login = (): Response => {
    cookie = NEXT;
    server.last.close(4102, "another login took its place");
    return Response.json({ page: pageOf(NEXT), session: NEXT });
  };

  test("is shown when the server has been asked for that, from the page, with its token and as JSON", async () => {
    fetching(() => new Response(null, { status: 204 }));
    await load();
    answering(() => effects);
    const box = ask();
    await clock.settle();
    expect(box.answer).toMatchObject(ok(1));
    const [url, init] = fetched.mock.calls.at(-1)!;
    expect(url).toContain(`${EFFECTS}?endId=${encodeURIComponent(pageOf(SESSION))}`);
    expect(init).toMatchObject({ method: "POST", keepalive: true, headers: { "Content-Type": "application/json" } });
  });

  test("is an error when they are not applied", async () => {
    fetching(() => Response.json({ error: "no such effects" }, { status: 404 }));
    await load();
    answering(() => effects);
    const box = ask();
    await clock.settle();
    expect(box.answer).toEqual({ status: "error", message: "no such effects" });
  });

  test("as a login, moves the page to the new session: at once, with its new token, and without a reload", async () => {
    fetching(login);
    await load();
    answering(() => effects);
    const box = ask();
    await clock.advance(100);
    expect(box.answer).toMatchObject(ok(1));
    expect(server.live).toHaveLength(1);
    expect(server.last.got("attach").map(({ payload }) => payload.page)).toEqual([pageOf(NEXT)]);
    expect([reload.mock.calls, replace.mock.calls]).toEqual([[], []]);
    answering();
    const next = ask(2);
    await clock.settle();
    expect(next.answer).toEqual(ok(2));
    expect(events.map(([type]) => type)).toEqual(["open", "close", "open"]);
    expect(events[1]![1]).toMatchObject({ code: 4102 });
  });

  test("as a login, leaves nothing of the session before: it is not sent again, not shown, and streams begin anew", async () => {
    fetching(login);
    await load();
    renderer.persistent.push(PERSISTENT);
    void renderer.call(PERSISTENT);
    const before = ask("before");
    await clock.settle();
    answering(({ payload }) => (payload.inputs?.[0]?.value === "login" ? effects : null));
    ask("login");
    await clock.advance(100);
    expect(before.answer).toEqual({ status: "prevent_update" });
    expect(renderer.restarts).toBe(1);
    const inputs = server.last.got("callback_request").map(({ payload }) => payload.inputs);
    expect(inputs).toEqual([[]]);
  });

  test("as a logout, gives its answer before the page goes to the login", async () => {
    fetching(() => new Response(null, { status: 204 }));
    await load();
    server.serve(
      () => cookie,
      (_, connection) => {
        clock.task(() => connection.close(4501, "logged out"));
        return effects;
      },
    );
    const box = ask();
    await clock.settle();
    expect(box.answer).toMatchObject(ok(1));
    expect(replace).not.toHaveBeenCalled();
    await clock.advance(2_000);
    expect(replace).toHaveBeenCalledOnce();
    expect(events.map(([type]) => type)).toEqual(["open", "close", "session-ended"]);
  });

  test("as a logout, is left alone when its answer leads elsewhere", async () => {
    fetching(() => new Response(null, { status: 204 }));
    await load();
    server.serve(
      () => cookie,
      (_, connection) => {
        clock.task(() => connection.close(4501, "logged out"));
        return effects;
      },
    );
    ask();
    await clock.settle();
    dispatchEvent(new Event("beforeunload"));
    await clock.advance(900);
    expect(replace).not.toHaveBeenCalled();
  });
});

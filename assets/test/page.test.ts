import { MARK } from "../src/fetch";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { keepListenersApart } from "./listeners";

const SETTINGS = { prefix: "/app/", login: "/login", page: "to+ken/=", session: "abc", bridge: false, status: true };
const ASKED = ["https://dash.example/app/_dash-quart-ws/session?endId=to%2Bken%2F%3D", { cache: "no-store" }];

const native = vi.fn<typeof fetch>();
let replace: ReturnType<typeof vi.fn<(url: string) => void>>;
let reload: ReturnType<typeof vi.fn<() => void>>;
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

/** Load a page with the script in it. */
async function open(settings: unknown = SETTINGS, statuses: Record<string, number | Error> = {}): Promise<void> {
  native.mockReset().mockImplementation(async (input) => {
    const status = Object.entries(statuses).find(([part]) => String(input).includes(part))?.[1] ?? 200;
    if (status instanceof Error) throw status;
    return new Response(null, { status, headers: status === 200 ? {} : { [MARK]: "about the session" } });
  });
  if (settings !== null) {
    const meta = document.createElement("meta");
    meta.name = "dash-quart-ws";
    meta.content = typeof settings === "string" ? settings : JSON.stringify(settings);
    document.head.append(meta);
  }
  vi.resetModules();
  const { ways } = await import("../src/leave");
  replace = vi.spyOn(ways, "replace").mockReturnValue() as typeof replace;
  reload = vi.spyOn(ways, "reload").mockReturnValue() as typeof reload;
  (await import("../src/page")).page();
}

function comeBack(persisted: boolean): void {
  dispatchEvent(Object.assign(new Event("pageshow"), { persisted }));
}

keepListenersApart();
beforeEach(() => {
  vi.stubGlobal("fetch", native);
});

describe("an answer to a request for Dash's data", () => {
  test("401 takes the page to the login", async () => {
    await open(SETTINGS, { "_dash-dependencies": 401 });
    expect((await fetch("/app/_dash-dependencies")).status).toBe(401);
    await settled();
    expect(replace.mock.calls).toEqual([["https://dash.example/login?next=%2Fapp%2Freport"]]);
  });

  test("409 loads the page again, once for all of them", async () => {
    await open(SETTINGS, { "_dash-update-component": 409 });
    await Promise.all([1, 2, 3].map(() => fetch("/app/_dash-update-component", { method: "POST" })));
    await settled();
    expect(reload).toHaveBeenCalledTimes(1);
  });

  test("401 takes a page that was made for nobody to the login too", async () => {
    await open({ ...SETTINGS, session: null }, { "_dash-update-component": 401 });
    await fetch("/app/_dash-update-component");
    await settled();
    expect(replace).toHaveBeenCalledTimes(1);
  });

  test.each(["beforeunload", "pagehide", "submit"])("moves no page that is on its way (%s)", async (sign) => {
    await open(SETTINGS, { "_dash-layout": 401 });
    const form = document.body.appendChild(document.createElement("form"));
    (sign === "submit" ? form : window).dispatchEvent(new Event(sign, { cancelable: true }));
    await fetch("/app/_dash-layout");
    await settled();
    expect(replace).not.toHaveBeenCalled();
  });
});

describe("a page that comes back as it was left", () => {
  test("asks whose it is", async () => {
    await open();
    comeBack(true);
    await settled();
    expect(native.mock.calls).toEqual([ASKED]);
    expect(replace).not.toHaveBeenCalled();
    expect(reload).not.toHaveBeenCalled();
  });

  test("goes to the login when nobody is signed in", async () => {
    await open(SETTINGS, { session: 401 });
    dispatchEvent(new Event("pagehide"));
    comeBack(true);
    await settled();
    expect(replace).toHaveBeenCalledTimes(1);
  });

  test("is loaded again when somebody else is", async () => {
    await open(SETTINGS, { session: 409 });
    comeBack(true);
    await settled();
    expect(reload).toHaveBeenCalledTimes(1);
  });

  test("stays when it was made for nobody, and there is nobody", async () => {
    await open({ ...SETTINGS, session: null }, { session: 401 });
    comeBack(true);
    await settled();
    expect(native.mock.calls).toEqual([ASKED]);
    expect(replace).not.toHaveBeenCalled();
    expect(document.querySelector("[role=alert]")).toBeNull();
  });

  test("is loaded again when it was made for nobody, and there is somebody", async () => {
    await open({ ...SETTINGS, session: null }, { session: 409 });
    comeBack(true);
    await settled();
    expect(reload).toHaveBeenCalledTimes(1);
  });

  test.each([204, 404, 500, 503, new TypeError("Failed to fetch")])("stays when the answer is %s", async (answer) => {
    await open(SETTINGS, { session: answer });
    comeBack(true);
    await settled();
    expect(native.mock.calls).toEqual([ASKED]);
    expect(replace).not.toHaveBeenCalled();
    expect(reload).not.toHaveBeenCalled();
    expect(document.querySelector("[role=alert]")).toBeNull();
  });

  test("a page that is simply loaded asks nothing", async () => {
    await open();
    comeBack(false);
    await settled();
    expect(native).not.toHaveBeenCalled();
  });
});

describe("a page whose socket has ended", () => {
  test("asks why, and goes to the login", async () => {
    const port = Object.assign(new EventTarget(), { postMessage: vi.fn() });
    vi.stubGlobal("SharedWorker", function SharedWorker() {
      return { port };
    });
    vi.spyOn(Math, "random").mockReturnValue(0);
    await open(SETTINGS, { session: 401 });
    new SharedWorker("/worker.js", { name: "dash-ws-worker" });
    port.dispatchEvent(new MessageEvent("message", { data: { type: "disconnected" } }));
    await vi.waitFor(() => expect(replace).toHaveBeenCalledTimes(1));
    expect(native.mock.calls).toEqual([ASKED]);
  });
});

/** The browser's: whoever makes one is noted. */
function browserWorkers(): Array<{ url: string; options: unknown; port: EventTarget }> {
  const made: Array<{ url: string; options: unknown; port: EventTarget }> = [];
  vi.stubGlobal("SharedWorker", function SharedWorker(url: string, options: unknown) {
    const port = Object.assign(new EventTarget(), { postMessage: vi.fn(), start: vi.fn(), close: vi.fn() });
    const worker = Object.assign(new EventTarget(), { url, options, port });
    made.push(worker);
    return worker;
  });
  return made;
}

const dashWorker = (): SharedWorker => new SharedWorker("/dash.js", { name: "dash-ws-worker" });

describe("the worker of Dash's renderer", () => {
  test("is Dash's own without the bridge", async () => {
    const made = browserWorkers();
    await open({ ...SETTINGS, bridge: false });
    expect(dashWorker()).toBe(made[0]);
    expect(made).toMatchObject([{ url: "/dash.js", options: { name: "dash-ws-worker" } }]);
  });

  test("is no worker with the bridge; the bridge's own starts when the renderer connects, from the page's script", async () => {
    const made = browserWorkers();
    Object.defineProperty(document, "currentScript", { configurable: true, get: () => ({ src: "https://dash.example/app/bridge.js" }) });
    await open({ ...SETTINGS, bridge: true });
    const { port } = dashWorker();
    expect(made).toEqual([]);
    port.postMessage({ type: "connect", rendererId: "tab", payload: { serverUrl: "wss://dash.example/x" } });
    expect(made).toMatchObject([{ url: "https://dash.example/app/bridge.js" }]);
    expect(made[0]!.options).not.toMatchObject({ name: "dash-ws-worker" });
    delete (document as { currentScript?: unknown }).currentScript;
  });

  test("is there with the bridge also where the browser has none", async () => {
    vi.stubGlobal("SharedWorker", undefined);
    await open({ ...SETTINGS, bridge: true });
    expect(dashWorker().port).toBeDefined();
  });

  test("is not there without the bridge where the browser has none", async () => {
    vi.stubGlobal("SharedWorker", undefined);
    await open({ ...SETTINGS, bridge: false });
    expect(window.SharedWorker).toBeUndefined();
  });

  test.each([true, false])("only: the app's own are made as they are asked for (with the bridge: %s)", async (bridge) => {
    const made = browserWorkers();
    await open({ ...SETTINGS, bridge });
    expect(new SharedWorker("/theirs.js", "theirs")).toBe(made[0]);
    expect(made).toMatchObject([{ url: "/theirs.js", options: "theirs" }]);
  });
});

describe("with the bridge as without", () => {
  test.each([true, false])("401 takes the page to the login (%s)", async (bridge) => {
    await open({ ...SETTINGS, bridge }, { "_dash-layout": 401 });
    await fetch("/app/_dash-layout");
    await settled();
    expect(replace).toHaveBeenCalledTimes(1);
  });

  test.each([true, false])("a page that comes back asks whose it is (%s)", async (bridge) => {
    await open({ ...SETTINGS, bridge }, { session: 409 });
    comeBack(true);
    await settled();
    expect(native.mock.calls).toEqual([ASKED]);
    expect(reload).toHaveBeenCalledTimes(1);
  });
});

describe("a page stays as Dash made it", () => {
  test.each([null, "", "{", "null", "{}"])("when its settings are %j", async (settings) => {
    class Workers {}
    vi.stubGlobal("SharedWorker", Workers);
    await open(settings);
    expect(window.fetch).toBe(native);
    expect(window.SharedWorker).toBe(Workers);
    comeBack(true);
    await settled();
    expect(native).not.toHaveBeenCalled();
  });

  test("when the browser has no fetch, also when it comes back", async () => {
    vi.stubGlobal("fetch", undefined);
    await open();
    comeBack(true);
    await settled();
    expect(window.fetch).toBeUndefined();
    expect(document.querySelector("[role=alert]")).toBeNull();
  });
});

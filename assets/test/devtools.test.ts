import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Message } from "../src/wire";

/** Stands for what the page script, or the browser, gives the renderer as its worker. */
class Worker {
  static last: Worker;
  readonly sent: Message[] = [];
  readonly port = {
    onmessage: undefined as ((event: { data: Message }) => void) | undefined,
    postMessage: (message: Message) => void this.sent.push(message),
    start: vi.fn(),
    close: vi.fn(),
  };
  constructor() {
    Worker.last = this;
  }
  tell(data: Message): void {
    this.port.onmessage!({ data });
  }
}

type Action = { type: string; payload?: any };
type Reduce = (state: Action[], action: Action) => Action[];

const inputs = [{ id: "go", property: "n_clicks", value: 1 }];
const payload = { output: "out.children", inputs };
const body = JSON.stringify(payload);
const request = { type: "callback_request", rendererId: "tab", requestId: "1", payload };
const usage = { __dash_server: 9, __dash_client: 9, __dash_upload: 0, __dash_download: 0 };

let original: typeof fetch;
let port: any;
let heard: any[];

/** A page with the script, whose renderer has a worker. */
async function load(): Promise<void> {
  vi.resetModules();
  vi.stubGlobal("SharedWorker", Worker);
  vi.stubGlobal("fetch", original);
  await import("../src/devtools");
  ({ port } = new SharedWorker("/worker.js", { name: "dash-ws-worker" }));
  heard = [];
  port.onmessage = ({ data }: { data: Message }) => heard.push(data);
}

beforeEach(async () => {
  original = vi.fn<typeof fetch>();
  delete window.__REDUX_DEVTOOLS_EXTENSION_COMPOSE__;
  await load();
});

const answer = (payload: unknown): void => Worker.last.tell({ type: "callback_response", rendererId: "tab", requestId: "1", payload });

/** What the renderer's store is told of actions. */
function counted(...actions: Action[]): Action[] {
  const plain: any = (create: any) => create;
  const enhance = window.__REDUX_DEVTOOLS_EXTENSION_COMPOSE__!({ actionsDenylist: [] })(plain);
  let reduce!: Reduce;
  enhance((reducer) => void (reduce = reducer as Reduce))((state, action) => [...(state as Action[]), action]);
  return actions.reduce(reduce, []);
}

describe("what the renderer and its worker say to one another", () => {
  test("passes as it is", () => {
    port.postMessage({ type: "connect" });
    port.start();
    port.close();
    expect(Worker.last.sent).toEqual([{ type: "connect" }]);
    expect(Worker.last.port.start).toHaveBeenCalledOnce();
    expect(Worker.last.port.close).toHaveBeenCalledOnce();
    for (const message of [{ type: "connected" }, { type: "set_props", payload: { componentId: "a" } }]) {
      Worker.last.tell(message);
      expect(heard.at(-1)).toBe(message);
    }
    port.postMessage(request);
    expect(Worker.last.sent[1]).toBe(request);
    answer({ status: "ok", data: {} });
    expect(heard.at(-1)).toMatchObject({ requestId: "1", payload: { status: "ok", data: {} } });
    answer({ status: "error", message: "nobody asked" });
    expect(heard.at(-1).payload).toEqual({ status: "error", message: "nobody asked" });
  });

  test("is not watched where there are no shared workers", async () => {
    vi.resetModules();
    vi.stubGlobal("SharedWorker", undefined);
    await import("../src/devtools");
    expect(typeof SharedWorker).toBe("undefined");
  });
});

describe("a callback that fails", () => {
  test("rejects with the page about its exception, as over HTTP", async () => {
    port.postMessage(request);
    answer({ status: "error", message: "Callback failed", devtools: { usage: { __dash_server: 3 }, page: "<!doctype html>" } });
    const failed: Response = await heard[0].payload.catch((page: Response) => page);
    expect([failed.status, await failed.text()]).toEqual([500, "<!doctype html>"]);
    expect(counted({ type: "UPDATE_RESOURCE_USAGE", payload: { inputs } })).toEqual([]); // as over HTTP
  });

  test("rejects with what is said about it, when there is no page", async () => {
    port.postMessage(request);
    answer({ status: "error", message: "The server cannot be reached." });
    const failed: Response = await heard[0].payload.catch((page: Response) => page);
    expect(await failed.text()).toBe("The server cannot be reached.");
    const unanswered = { type: "UPDATE_RESOURCE_USAGE", payload: { inputs, status: "NO_RESPONSE" } };
    expect(counted(unanswered)).toEqual([unanswered]);
  });

  test("rejects also when nobody waits for it any more", () => {
    port.postMessage(request);
    answer({ status: "error", message: "late" }); // a rejection that nobody handles ends this run
    expect(heard[0].payload).toBeInstanceOf(Promise);
  });
});

describe("what the callback graph counts", () => {
  test("is what the server says, and what was sent", () => {
    port.postMessage(request);
    answer({ status: "ok", data: {}, devtools: { usage: { __dash_server: 3, __dash_download: 20, database: 250 } } });
    const [action] = counted({ type: "UPDATE_RESOURCE_USAGE", payload: { id: "out.children", inputs, usage } });
    expect(action!.payload).toEqual({
      id: "out.children",
      inputs,
      usage: { __dash_server: 3, __dash_client: 9, __dash_upload: body.length, __dash_download: 20, database: 250 },
    });
  });

  test("is the renderer's own business for what did not come by here, and every other action", () => {
    const others = [
      { type: "UPDATE_RESOURCE_USAGE", payload: { inputs: [...inputs], usage } },
      { type: "UPDATE_RESOURCE_USAGE", payload: { inputs: undefined, usage } },
      { type: "ON_PROP_CHANGE", payload: { inputs } },
      { type: "RELOAD" },
    ];
    expect(counted(...others)).toEqual(others);
  });

  test("is seen by the Redux DevTools beside it, if somebody has these", async () => {
    const theirs = vi.fn((_options?: object) => (...enhancers: any[]) => enhancers.at(-1));
    window.__REDUX_DEVTOOLS_EXTENSION_COMPOSE__ = theirs;
    await load();
    port.postMessage(request);
    answer({ status: "prevent_update", devtools: { usage: { __dash_server: 3 } } });
    const [action] = counted({ type: "UPDATE_RESOURCE_USAGE", payload: { inputs, usage } });
    expect(action!.payload.usage.__dash_server).toBe(3);
    expect(theirs).toHaveBeenCalledWith({ actionsDenylist: [] });
  });
});

describe("what goes over HTTP after all", () => {
  const post = (response: Response, text = body): Promise<Response> => {
    vi.mocked(original).mockResolvedValueOnce(response);
    return window.fetch("/_dash-update-component", { method: "POST", body: text });
  };

  test("fails with the page that the server has sent", async () => {
    port.postMessage(request);
    const response = await post(new Response("<!doctype html>", { status: 500 }));
    expect(await response.text()).toBe("<!doctype html>"); // whoever has posted it can read it, too
    answer({ status: "error", message: "500 INTERNAL SERVER ERROR" });
    const failed: Response = await heard[0].payload.catch((page: Response) => page);
    expect([failed.status, await failed.text()]).toEqual([500, "<!doctype html>"]);
  });

  test("is counted by the headers of its response", async () => {
    port.postMessage(request);
    const headers = { "Content-Length": "20", "Server-Timing": '__dash_server;dur=3, database;desc="a;b";dur=250, nothing' };
    await post(new Response("{}", { headers }));
    answer({ status: "ok", data: {} });
    const [action] = counted({ type: "UPDATE_RESOURCE_USAGE", payload: { inputs, usage } });
    expect(action!.payload.usage).toEqual({ __dash_server: 3, __dash_client: 9, __dash_upload: body.length, __dash_download: 20, database: 250 });
  });

  test("is told from what others post", async () => {
    port.postMessage(request);
    const response = new Response("{}");
    expect(await post(response, "something else")).toBe(response);
    answer({ status: "ok", data: {} });
    const own = { type: "UPDATE_RESOURCE_USAGE", payload: { inputs, usage } };
    expect(counted(own)).toEqual([own]);
  });

  test("is forgotten with the connection, which settles all", async () => {
    port.postMessage(request);
    Worker.last.tell({ type: "disconnected" });
    answer({ status: "error", message: "late" });
    expect(heard[1].payload).toEqual({ status: "error", message: "late" });
  });
});

import { beforeEach, describe, expect, test, vi } from "vitest";
import { SPREAD, STALE, watchWorker } from "../src/dash-worker";
import { keepListenersApart } from "./listeners";

const posted = vi.fn<(...sent: unknown[]) => void>();

/** Stands for the browser's: jsdom has none. */
class BrowserWorker {
  readonly port = Object.assign(new EventTarget(), { start: vi.fn(), onmessage: null, postMessage: posted });
  constructor(
    readonly url: string | URL,
    readonly options?: string | WorkerOptions,
  ) {}
}

const ask = vi.fn<() => void>();
const stale = vi.fn<() => void>();

keepListenersApart();
beforeEach(() => {
  vi.useFakeTimers();
  ask.mockReset();
  stale.mockReset();
  posted.mockReset();
  vi.stubGlobal("SharedWorker", BrowserWorker);
});

function start(options: string | WorkerOptions | undefined = { name: "dash-ws-worker" }): SharedWorker {
  watchWorker("token", ask, stale);
  return new SharedWorker("/worker.js", options);
}

function say(worker: SharedWorker, data: unknown): void {
  worker.port.dispatchEvent(new MessageEvent("message", { data }));
}

const disconnected = { type: "disconnected", rendererId: "", payload: { reason: "logged out" } };
const connected = { type: "connected", rendererId: "tab" };

describe("Dash's worker says that its socket has ended", () => {
  test("the server is asked why, within a second but not at once", () => {
    say(start(), disconnected);
    expect(ask).not.toHaveBeenCalled();
    vi.advanceTimersByTime(SPREAD);
    expect(ask).toHaveBeenCalledTimes(1);
  });

  test("tabs do not all ask at the same moment", () => {
    const random = vi.spyOn(Math, "random").mockReturnValue(0.75);
    say(start(), disconnected);
    vi.advanceTimersByTime(0.75 * SPREAD - 1);
    expect(ask).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1);
    expect(ask).toHaveBeenCalledTimes(1);
    expect(random).toHaveBeenCalledTimes(1);
  });

  test("it is asked each time that reconnecting fails, so that the last answer is that of now", () => {
    const worker = start();
    for (let times = 1; times < 4; times++) {
      say(worker, disconnected);
      vi.advanceTimersByTime(30_000);
      expect(ask).toHaveBeenCalledTimes(times);
    }
  });

  test.each([{}, { type: "error" }, connected])("not by %j", (data) => {
    say(start(), data);
    vi.advanceTimersByTime(SPREAD);
    expect(ask).not.toHaveBeenCalled();
  });
});

describe("what the page asks is asked for its own session", () => {
  const request = { type: "callback_request", rendererId: "tab", requestId: "1", payload: { output: "a.b", inputs: [] } };

  test("a callback request carries the page token", () => {
    start().port.postMessage(request);
    expect(posted.mock.calls).toEqual([[{ ...request, payload: { ...request.payload, endId: "token" } }]]);
    expect(request.payload).not.toHaveProperty("endId");
  });

  test.each([{ type: "connect", serverUrl: "ws://x" }, { type: "get_props_response", payload: { a: 1 } }])(
    "all else passes as it is: %j",
    (message) => {
      start().port.postMessage(message);
      expect(posted.mock.calls).toEqual([[message]]);
    },
  );

  test("the app's own workers get what they are sent", () => {
    watchWorker("token", ask, stale);
    new SharedWorker("/theirs.js").port.postMessage(request);
    expect(posted.mock.calls).toEqual([[request]]);
  });

  test("an answer that the page is another session's is heard", () => {
    say(start(), { type: "callback_response", rendererId: "tab", payload: { status: "error", message: STALE } });
    expect(stale).toHaveBeenCalledTimes(1);
  });

  test.each([
    { type: "callback_response", payload: { status: "ok", data: {} } },
    { type: "callback_response", payload: { status: "error", message: "Callback failed (error 1)" } },
    { type: "callback_response" },
    { type: "set_props", payload: { componentId: "out", props: { message: STALE } } },
  ])("no other is: %j", (message) => {
    say(start(), message);
    expect(stale).not.toHaveBeenCalled();
  });
});

describe("Dash's worker is not disturbed", () => {
  test("its port is started, and heard, by Dash alone", () => {
    const worker = start();
    expect(worker.port.start).not.toHaveBeenCalled();
    expect(worker.port.onmessage).toBeNull();
  });

  test("it is made with what Dash gave", () => {
    const options = { name: "dash-ws-worker" };
    expect(start(options)).toMatchObject({ url: "/worker.js", options });
  });
});

describe("the app's own workers are left alone", () => {
  test.each([undefined, "theirs", { name: "theirs" }, {}, { name: "" }])("named by %j", (options) => {
    watchWorker("token", ask, stale);
    const worker = new SharedWorker("/theirs.js", options);
    say(worker, disconnected);
    vi.advanceTimersByTime(SPREAD);
      expect(ask).not.toHaveBeenCalled();
    expect(worker).toMatchObject({ url: "/theirs.js", options });
  });

  test("a name may be given as a string", () => {
    say(start("dash-ws-worker"), disconnected);
    vi.advanceTimersByTime(SPREAD);
    expect(ask).toHaveBeenCalledTimes(1);
  });

  test("they are SharedWorkers, their subclasses too", () => {
    watchWorker("token", ask, stale);
    class Theirs extends SharedWorker {
      readonly own: string;
      constructor(url: string) {
        super(url);
        this.own = new.target.name;
      }
    }
    const worker = new Theirs("/theirs.js");
    expect(worker).toBeInstanceOf(Theirs);
    expect(worker).toBeInstanceOf(SharedWorker);
    expect(worker).toBeInstanceOf(BrowserWorker);
    expect(worker.own).toBe("Theirs");
    expect(new SharedWorker("/theirs.js")).toBeInstanceOf(SharedWorker);
    expect(() => (SharedWorker as unknown as () => void)()).toThrow(TypeError);
  });
});

test("a browser without SharedWorker stays without", () => {
  vi.stubGlobal("SharedWorker", undefined);
  watchWorker("token", ask, stale);
  expect(window.SharedWorker).toBeUndefined();
  expect(ask).not.toHaveBeenCalled();
});

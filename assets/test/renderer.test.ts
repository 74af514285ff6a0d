import { beforeEach, describe, expect, test, vi } from "vitest";
import { type FromRenderer, Port, replaceWorker } from "../src/renderer";

/** Stands for the browser's: jsdom has none. */
class BrowserWorker {
  readonly port = { name: "the browser's" };
  constructor(
    readonly url: string | URL,
    readonly options?: string | WorkerOptions,
  ) {}
}

beforeEach(() => void vi.stubGlobal("SharedWorker", BrowserWorker));

const ours = { port: "ours" };
const start = (options?: string | WorkerOptions): unknown => new SharedWorker("/worker.js", options);

describe("the worker of Dash's renderer", () => {
  test.each(["dash-ws-worker", { name: "dash-ws-worker" }, { name: "dash-ws-worker", type: "module" } as const])("named by %j, is ours", (options) => {
    replaceWorker(() => ours);
    expect(start(options)).toBe(ours);
  });

  test("is what the browser would have made, where that is wanted", () => {
    const make = vi.fn<(original: () => SharedWorker) => unknown>((original) => original());
    replaceWorker(make);
    expect(start({ name: "dash-ws-worker" })).toBeInstanceOf(BrowserWorker);
    expect(start({ name: "dash-ws-worker" })).toMatchObject({ url: "/worker.js", options: { name: "dash-ws-worker" } });
    expect(make).toHaveBeenCalledTimes(2);
  });

  test("is ours also in a browser that has no shared workers", () => {
    vi.stubGlobal("SharedWorker", undefined);
    replaceWorker(() => ours);
    expect(typeof SharedWorker).not.toBe("undefined"); // else Dash's renderer does without
    expect(start({ name: "dash-ws-worker" })).toBe(ours);
  });
});

describe("the app's own workers", () => {
  test.each([undefined, "theirs", { name: "theirs" }, {}, { name: "" }, "dash-ws-worker2", "Dash-Ws-Worker"])("named by %j, are the browser's", (options) => {
    const make = vi.fn(() => ours);
    replaceWorker(make);
    expect(start(options)).toMatchObject({ url: "/worker.js", options });
    expect(start(options)).toBeInstanceOf(BrowserWorker);
    expect(start(options)).toBeInstanceOf(SharedWorker);
    expect(make).not.toHaveBeenCalled();
  });

  test("may be subclasses", () => {
    replaceWorker(() => ours);
    class Theirs extends SharedWorker {
      readonly own: string;
      constructor(url: string) {
        super(url);
        this.own = new.target.name;
      }
    }
    const worker = new Theirs("/theirs.js");
    expect(worker).toBeInstanceOf(Theirs);
    expect(worker).toBeInstanceOf(BrowserWorker);
    expect(worker.own).toBe("Theirs");
  });

  test("are called wrongly as ever", () => {
    replaceWorker(() => ours);
    expect(() => (SharedWorker as unknown as () => void)()).toThrow(TypeError);
  });

  test("do not exist where there are none", () => {
    vi.stubGlobal("SharedWorker", undefined);
    replaceWorker(() => ours);
    expect(() => start("theirs")).toThrow(TypeError);
  });
});

describe("the port that the renderer has", () => {
  test("takes what it says, at once", () => {
    const heard: FromRenderer[] = [];
    const port = new Port((said) => heard.push(said));
    port.start();
    port.postMessage({ type: "connect", rendererId: "tab" });
    expect(heard).toEqual([{ type: "connect", rendererId: "tab" }]);
    port.close();
  });

  test("tells it things by onmessage, whatever that is at the moment", () => {
    const port = new Port(() => {});
    port.tell({ type: "too early" });
    const heard: unknown[] = [];
    port.onmessage = ({ data }) => heard.push(data);
    port.tell({ type: "connected" });
    expect(heard).toEqual([{ type: "connected" }]);
  });
});

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type FakePort, FakeClock, FakeLocks, FakeServer, pageOf, portPair, SESSION } from "./fakes";
import { keepListenersApart } from "./listeners";

keepListenersApart();

let clock: FakeClock;
let server: FakeServer;
let locks: FakeLocks;

beforeEach(() => {
  clock = new FakeClock();
  server = new FakeServer(clock);
  locks = new FakeLocks(clock);
  vi.resetModules();
});
afterEach(() => clock.end());

/** A page connects to the worker. */
function connect(renderer: string): FakePort {
  const [port, inside] = portPair(clock);
  dispatchEvent(Object.assign(new Event("connect"), { ports: [inside] }));
  port.onmessage = ({ data }) => (heard[renderer] ??= []).push(data.t);
  const given = { url: "wss://dash.example/x", inactivity: 0, session: SESSION, visible: true, fresh: true };
  port.postMessage({ t: "open", lock: renderer, renderer, page: pageOf(SESSION), ...given });
  return port;
}

let heard: Record<string, string[]> = {};

describe("the script", () => {
  test("is the bridge in a worker: one for all that connect", async () => {
    heard = {};
    server.serve(() => SESSION);
    vi.stubGlobal("document", undefined);
    await import("../src/main");
    connect("a");
    connect("b");
    await clock.settle();
    expect(server.connections).toHaveLength(1);
    for (const words of Object.values(heard)) expect(words.filter((t) => t !== "message")).toEqual(["hello", "up"]);
    expect(Object.keys(heard)).toEqual(["a", "b"]);
    expect(locks.held).toHaveLength(1);
  });

  test("holds a lock whose name no other worker has", async () => {
    vi.stubGlobal("document", undefined);
    await import("../src/main");
    vi.resetModules();
    await import("../src/main");
    await clock.settle();
    expect(new Set(locks.held).size).toBe(2);
  });

  test("is the page script in a page", async () => {
    const original = window.fetch;
    document.head.innerHTML = `<meta name="dash-quart-ws" content='{"prefix":"/","login":null,"page":"","session":null,"bridge":true}'>`;
    await import("../src/main");
    expect(window.SharedWorker).toBeDefined();
    expect(window.fetch).not.toBe(original);
    connect("a");
    await clock.settle();
    expect(server.connections).toEqual([]);
    window.fetch = original;
    delete (window as { SharedWorker?: unknown }).SharedWorker;
  });
});

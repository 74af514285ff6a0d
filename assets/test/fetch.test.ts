import { beforeEach, describe, expect, test, vi } from "vitest";
import { MARK, watchFetch } from "../src/fetch";

const PREFIX = new URL("https://dash.example/app/");
const seen = vi.fn<(status: number) => void>();
const native = vi.fn<typeof fetch>();

beforeEach(() => {
  document.head.replaceChildren();
  seen.mockReset();
  native.mockReset().mockImplementation(async () => new Response("body", { status: 401, headers: { [MARK]: "required" } }));
  vi.stubGlobal("fetch", native);
});

describe("answers to requests for Dash's data are seen", () => {
  test.each([
    "/app/_dash-update-component",
    "/app/_dash-layout",
    "/app/_dash-dependencies?x=1",
    "https://dash.example/app/_dash-layout#part",
    "_dash-layout",
    new URL("https://dash.example/app/_dash-layout"),
    new Request("https://dash.example/app/_dash-update-component", { method: "POST" }),
  ])("%s", async (input) => {
    watchFetch(PREFIX, seen);
    await fetch(input);
    expect(seen.mock.calls).toEqual([[401]]);
  });
});

describe("nothing else is seen", () => {
  test.each([
    "/app/data",
    "/_dash-layout",
    "/other/_dash-layout",
    "/app/_dash-layout/more",
    "/app/app/_dash-layout",
    "/app/_dash-component-suites/dash/x.js",
    "https://other.example/app/_dash-layout",
    "http://dash.example/app/_dash-layout",
    "https://other.example/https://dash.example/app/_dash-layout",
    "http://[",
    "",
    new Request("https://other.example/app/_dash-layout"),
  ])("%s", async (input) => {
    watchFetch(PREFIX, seen);
    expect((await fetch(input)).status).toBe(401);
    expect(native).toHaveBeenCalledExactlyOnceWith(input);
    expect(seen).not.toHaveBeenCalled();
  });

  test.each([undefined, null])("%s", async (input) => {
    watchFetch(PREFIX, seen);
    await fetch(input as unknown as string);
    expect(native).toHaveBeenCalledExactlyOnceWith(input);
    expect(seen).not.toHaveBeenCalled();
  });
});

test("a callback's own 401 or 409 is its own affair", async () => {
  native.mockImplementation(async () => new Response("mine", { status: 409 }));
  watchFetch(PREFIX, seen);
  expect((await fetch("/app/_dash-update-component")).status).toBe(409);
  expect(seen).not.toHaveBeenCalled();
});

describe("fetch is what it was", () => {
  test("each answer is the very one, with its body unread", async () => {
    const answer = new Response("body", { status: 409, headers: { [MARK]: "stale" } });
    native.mockResolvedValue(answer);
    watchFetch(PREFIX, seen);
    const got = await fetch("/app/_dash-layout");
    expect(got).toBe(answer);
    expect(got.bodyUsed).toBe(false);
    expect(await got.text()).toBe("body");
  });

  test("an answer is given before its body has come", async () => {
    native.mockResolvedValue(new Response(new ReadableStream({ pull: () => new Promise(() => {}) }), { status: 401, headers: { [MARK]: "required" } }));
    watchFetch(PREFIX, seen);
    expect((await fetch("/app/_dash-layout")).status).toBe(401);
  });

  test("a rejection is the asker's, with its own error", async () => {
    const error = new TypeError("Failed to fetch");
    native.mockRejectedValue(error);
    watchFetch(PREFIX, seen);
    await expect(fetch("/app/_dash-layout")).rejects.toBe(error);
    expect(seen).not.toHaveBeenCalled();
  });

  test("what is thrown is thrown", () => {
    native.mockImplementation(() => {
      throw new RangeError("an app's own");
    });
    watchFetch(PREFIX, seen);
    expect(() => fetch("/app/_dash-layout")).toThrow(RangeError);
  });

  test("whatever the page makes of an answer, the asker gets it", async () => {
    // The error is thrown apart: it is reported as one of this script, and the answer does not know of it.
    const apart: Array<() => void> = [];
    vi.stubGlobal("queueMicrotask", (task: () => void) => apart.push(task));
    seen.mockImplementation(() => {
      throw new Error("of ours");
    });
    watchFetch(PREFIX, seen);
    expect((await fetch("/app/_dash-layout")).status).toBe(401);
    expect(apart).toHaveLength(1);
    expect(apart[0]).toThrow("of ours");
  });

  test("arguments and receiver arrive as they were given", async () => {
    const init = { method: "POST", signal: new AbortController().signal };
    watchFetch(PREFIX, seen);
    await window.fetch("/app/_dash-layout", init);
    expect(native.mock.calls[0]![1]).toBe(init);
    expect(native.mock.contexts[0]).toBe(window);
  });

  test("its name and length are the browser's", () => {
    Object.defineProperties(native, { name: { value: "fetch" }, length: { value: 1 } });
    watchFetch(PREFIX, seen);
    expect(window.fetch).not.toBe(native);
    expect([window.fetch.name, window.fetch.length]).toEqual(["fetch", 1]);
  });
});

describe("an app may wrap fetch as well", () => {
  const wrap = (): void => {
    const inner = window.fetch;
    window.fetch = async (...args) => {
      const answer = await inner(...args);
      return new Response(`${await answer.text()} wrapped`, { status: answer.status, headers: answer.headers });
    };
  };

  test("before", async () => {
    wrap();
    watchFetch(PREFIX, seen);
    expect(await (await fetch("/app/_dash-layout")).text()).toBe("body wrapped");
    expect(seen.mock.calls).toEqual([[401]]);
  });

  test("after", async () => {
    watchFetch(PREFIX, seen);
    wrap();
    expect(await (await fetch("/app/_dash-layout")).text()).toBe("body wrapped");
    expect(seen.mock.calls).toEqual([[401]]);
  });
});

test("a browser without fetch stays without", () => {
  vi.stubGlobal("fetch", undefined);
  watchFetch(PREFIX, seen);
  expect(window.fetch).toBeUndefined();
});

import { expect, test, vi } from "vitest";
import { keepListenersApart } from "./listeners";

keepListenersApart();

test("the script without the bridge is a page script that leaves workers alone where there are none", async () => {
  const original = window.fetch;
  vi.stubGlobal("SharedWorker", undefined);
  document.head.innerHTML = `<meta name="dash-quart-ws" content='{"prefix":"/","login":null,"page":"","session":null,"bridge":false}'>`;
  await import("../src/plain");
  expect(window.fetch).not.toBe(original);
  expect(window.SharedWorker).toBeUndefined();
  window.fetch = original;
});

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FakeClock } from "./fakes";

let clock: FakeClock;
let status: typeof import("../src/status");

beforeEach(async () => {
  clock = new FakeClock();
  document.body.replaceChildren();
  vi.resetModules();
  status = await import("../src/status");
});
afterEach(() => clock.end());

const shown = (): HTMLElement | null => document.querySelector("[role=status]");

describe("the state of the connection", () => {
  test("is said after a second, and not when it is open again by then", async () => {
    status.show("reconnecting");
    await clock.advance(status.DELAY - 1);
    status.show("open");
    await clock.advance(10_000);
    expect(shown()).toBeNull();
    status.show("reconnecting");
    await clock.advance(status.DELAY);
    expect(shown()).toMatchObject({ textContent: "Reconnecting…", className: "dash-ws-status" });
  });

  test("is the last one that was so", async () => {
    status.show("connecting");
    status.show("reconnecting");
    status.show("stopped");
    await clock.advance(status.DELAY);
    expect(document.querySelectorAll("[role=status]")).toHaveLength(1);
    expect(shown()!.dataset["state"]).toBe("stopped");
  });

  test("changes at once where it is shown", async () => {
    status.show("reconnecting");
    await clock.advance(status.DELAY);
    status.show("signed-out");
    await clock.advance(0);
    expect(shown()).toMatchObject({ textContent: "Signed out" });
    expect(shown()!.dataset["state"]).toBe("signed-out");
    status.show("open");
    expect(shown()).toBeNull();
    await clock.advance(10_000);
    expect(shown()).toBeNull();
  });

  test("is shown again when the page has taken it away, or replaced what it holds", async () => {
    status.show("reconnecting");
    await clock.advance(status.DELAY);
    document.body.replaceChildren();
    status.show("stopped");
    await clock.advance(status.DELAY);
    expect(shown()!.dataset["state"]).toBe("stopped");
  });

  test("is said after a second for each loss anew", async () => {
    status.show("reconnecting");
    await clock.advance(status.DELAY);
    status.show("open");
    status.show("reconnecting");
    await clock.advance(status.DELAY - 1);
    expect(shown()).toBeNull();
    await clock.advance(1);
    expect(shown()).not.toBeNull();
  });
});

describe("an event", () => {
  test.each([
    ["open", undefined, null],
    ["close", { code: 1006, reason: "" }, { code: 1006, reason: "" }],
    ["session-ended", { code: 4501, reason: "logged out" }, { code: 4501, reason: "logged out" }],
  ] as const)("dash-ws:%s is the document's, and bubbles up to the window", (what, why, detail) => {
    const heard: unknown[] = [];
    const hear = ({ target, detail }: CustomEvent): void => void heard.push([target, detail]);
    addEventListener(`dash-ws:${what}`, hear as unknown as EventListener);
    status.announce(what, why);
    removeEventListener(`dash-ws:${what}`, hear as unknown as EventListener);
    expect(heard).toEqual([[document, detail]]);
  });
});

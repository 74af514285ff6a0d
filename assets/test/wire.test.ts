import { describe, expect, test } from "vitest";
import bridge from "../../tests/wire/bridge.json";
import outbound from "../../tests/wire/outbound.json";
import { decode, encode, type Message, SUBPROTOCOL, type Welcome } from "../src/wire";

/** The golden frames, which the server's tests read as well. */
describe("what the bridge sends is what the server's tests read", () => {
  test.each(bridge.map((entry) => [entry.name, entry.message as Message, entry.text] as const))("%s", (_, message, text) => {
    expect(encode(message)).toBe(text);
  });
});

describe("what the server sends is understood", () => {
  test.each(outbound.map(({ name, text }) => [name, text] as const))("%s", (_, text) => {
    const [message, ...rest] = decode(text);
    expect(rest).toEqual([]);
    expect(message).toEqual(JSON.parse(text));
    expect(typeof message!.type).toBe("string");
  });

  test("a welcome says whose the connection is, how much it takes, and how often it is to be asked", () => {
    const [welcome] = decode(outbound.find(({ name }) => name === "a welcome")!.text);
    const { session, maxBytes, heartbeat } = welcome!.payload as Welcome;
    expect(session).toBe("5e55");
    expect(maxBytes).toBeGreaterThan(0);
    expect(heartbeat).toBeGreaterThanOrEqual(0);
  });

  test("many messages in one frame keep their order", () => {
    const all = outbound.map(({ text }) => text);
    expect(decode(`[${all.join(",")}]`)).toEqual(all.map((text) => JSON.parse(text)));
  });
});

test("unknown fields and types of a later version are passed on", () => {
  expect(decode('[{"type": "a"}, {"type": "news", "unknown": 1}]')).toEqual([{ type: "a" }, { type: "news", unknown: 1 }]);
});

test("the subprotocol has the name that the server knows", () => {
  expect(SUBPROTOCOL).toBe("dash-quart-ws.v1");
});

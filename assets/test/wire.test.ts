import { describe, expect, test } from "vitest";
import bridge from "../../tests/wire/bridge.json";
import outbound from "../../tests/wire/outbound.json";
import { decode, encode, type Message, SUBPROTOCOL } from "../src/wire";

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

  test("a welcome says whose the connection is, and how much it takes", () => {
    const [welcome] = decode(outbound.find(({ name }) => name === "a welcome")!.text);
    expect(welcome!.payload).toMatchObject({ session: "5e55", maxBytes: 1_048_576 });
  });

  test("many messages in one frame keep their order", () => {
    const all = outbound.map(({ text }) => text);
    expect(decode(`[${all.join(",")}]`)).toEqual(all.map((text) => JSON.parse(text)));
  });
});

describe("what cannot be read is nothing", () => {
  test.each(["", "{", "null", "1", '"x"', "[]", "{}", "[null, 1, {}, [], {\"type\": \"\"}]", undefined, null])("%j", (frame) => {
    expect(decode(frame)).toEqual([]);
  });

  test("a binary frame is", () => {
    expect(decode(new Blob(["{}"]))).toEqual([]);
    expect(decode(new ArrayBuffer(3))).toEqual([]);
  });

  test("but what stands beside it is read", () => {
    expect(decode('[null, {"type": "a"}, 5, {"type": "b", "unknown": 1}]')).toEqual([{ type: "a" }, { type: "b", unknown: 1 }]);
  });
});

test("the subprotocol has the name that the server knows", () => {
  expect(SUBPROTOCOL).toBe("dash-quart-ws.v1");
});

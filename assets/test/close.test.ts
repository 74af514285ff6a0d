import { describe, expect, test } from "vitest";
import { type Meaning, meaningOf } from "../src/close";

const meaning = (wanted: Meaning, codes: number[]): void => {
  test.each(codes)("%i", (code) => expect(meaningOf(code)).toBe(wanted));
};

describe("the session is over with", () => meaning("over", [4501, 4502, 4503]));

describe("the socket stops for good with", () => meaning("stop", [1003, 1007, 1009, 4001, 4500, 4505]));

describe("an unknown code that is terminal stops the socket", () => meaning("stop", [4504, 4506, 4600, 4999]));

describe("the browser is about to be somebody else's with", () => meaning("switched", [4102]));

describe("there are too many with", () => meaning("crowded", [4105]));

describe("the socket comes back after", () => meaning("retry", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4100, 4101, 4103, 4104, 4106]));

describe("the socket comes back after a code that nobody has told it", () => meaning("retry", [1002, 1014, 1015, 3000, 4000, 4002, 4199, 4499, 5000]));

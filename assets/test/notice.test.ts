import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

let make: typeof import("../src/notice").make;
let sheets: Array<{ text: string }>;

beforeEach(async () => {
  sheets = [{ text: "the page's own" }];
  Object.defineProperty(document, "adoptedStyleSheets", { configurable: true, get: () => sheets, set: (all) => (sheets = all) });
  vi.resetModules();
  ({ make } = await import("../src/notice"));
});
afterEach(() => {
  delete (document as { adoptedStyleSheets?: unknown }).adoptedStyleSheets;
  document.body.replaceChildren();
});

/** Browsers have it; jsdom does not. */
class Sheet {
  text = "";
  replaceSync(text: string): void {
    this.text = text;
  }
}

test.each(["status", "alert"] as const)("a notice (%s) says what it is, to people and to the app's own style", (role) => {
  const notice = make(role);
  expect(notice.getAttribute("role")).toBe(role);
  expect(notice.className).toBe(`dash-ws-${role}`);
  expect(notice.isConnected).toBe(false);
  expect(notice.hasAttribute("style")).toBe(false);
});

describe("its style", () => {
  beforeEach(() => void vi.stubGlobal("CSSStyleSheet", Sheet));

  test("is adopted once, beside the page's own, so that no Content-Security-Policy forbids it", () => {
    make("status");
    make("alert");
    make("status");
    expect(sheets).toHaveLength(2);
    expect(sheets[0]!.text).toBe("the page's own");
    expect(document.querySelectorAll("style, [style]")).toHaveLength(0);
  });

  test("counts for less than any rule of the app's, and keeps to the reader's colours", () => {
    make("status");
    const { text } = sheets[1]!;
    for (const selector of text.split("}").map((rule) => rule.split("{")[0]!).filter(Boolean)) expect(selector).toMatch(/^:where\(.*\)$/);
    expect(text).toContain("color-scheme:light dark");
    expect(text).toContain("position:fixed");
    expect(text.split("{")).toHaveLength(text.split("}").length);
  });
});

test("a browser that cannot adopt a style shows plain text", () => {
  vi.stubGlobal("CSSStyleSheet", class {});
  expect(make("alert").getAttribute("role")).toBe("alert");
  expect(sheets).toHaveLength(1);
});

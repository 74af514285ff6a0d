import { afterEach, expect, test } from "vitest";
import { hide, isShown, show } from "../src/banner";

afterEach(hide);

test("what is said is text, also when it looks like markup", () => {
  show("<img src=x onerror=alert(1)>", "<b>go</b>", "/login");
  const banner = document.querySelector("[role=alert]")!;
  expect(banner.querySelectorAll("*")).toHaveLength(1);
  expect(banner.textContent).toBe("<img src=x onerror=alert(1)> <b>go</b>");
  expect(banner.querySelector("a")!.getAttribute("href")).toBe("/login");
});

test("it can be found, by people and by the app's own style", () => {
  show("text", "go", "/login");
  expect(document.querySelector("[role=alert]")!.className).toBe("dash-ws-alert");
});

test("it is shown until it is hidden, or the page takes it away", () => {
  expect(isShown()).toBe(false);
  show("text", "go", "/login");
  expect(isShown()).toBe(true);
  hide();
  expect(isShown()).toBe(false);
  show("text", "go", "/login");
  document.body.replaceChildren();
  expect(isShown()).toBe(false);
});

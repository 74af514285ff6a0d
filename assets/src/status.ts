import type { Why } from "./bridge";
import { make } from "./notice";

/** Milliseconds without a connection before anything is said about it. */
export const DELAY = 1_000;

const TEXTS = {
  connecting: "Connecting…",
  open: "",
  reconnecting: "Reconnecting…",
  stopped: "Live updates stopped",
  "signed-out": "Signed out",
} as const;

export type State = keyof typeof TEXTS;

let shown: HTMLElement | undefined;
let soon: ReturnType<typeof setTimeout> | undefined;

/** Tell the app, by an event of the document that bubbles up to the window. */
export function announce(what: "open" | "close" | "session-ended", detail?: Why): void {
  document.dispatchEvent(new CustomEvent(`dash-ws:${what}`, { bubbles: true, detail }));
}

/** Show in a corner how the connection is, if it is not open; `data-state` says it to the app's own style. */
export function show(state: State): void {
  clearTimeout(soon);
  if (state === "open") shown?.remove();
  else soon = setTimeout(draw, shown?.isConnected ? 0 : DELAY, state);
}

function draw(state: State): void {
  shown ??= make("status");
  shown.dataset["state"] = state;
  shown.textContent = TEXTS[state];
  document.body.append(shown);
}

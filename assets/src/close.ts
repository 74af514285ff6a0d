/**
 * What a close code asks of this side: 4000-4499 to come back, 4500-4999 not to, so that an unknown code is understood too.
 *
 * - `over`: the session has ended; its pages go to the login.
 * - `stop`: no socket any more, until somebody opens a page: callbacks go over HTTP.
 * - `switched`: the browser is about to be somebody else's, or nobody's; wait for the page that shows it.
 * - `crowded`: come back, but late.
 * - `retry`: come back.
 */
export type Meaning = "over" | "stop" | "switched" | "crowded" | "retry";

export const NOT_LOGGED_IN = 4501;
export const NO_HEARTBEAT = 4106;

const MEANINGS: Readonly<Record<number, Meaning>> = {
  1003: "stop", // registered: data that cannot be taken, not UTF-8, too big
  1007: "stop",
  1009: "stop",
  4001: "stop", // Dash's hooks refuse so, and its own worker does not come back then
  4102: "switched",
  4105: "crowded",
  4501: "over",
  4502: "over",
  4503: "over",
};

export function meaningOf(code: number): Meaning {
  return MEANINGS[code] ?? (code >= 4500 && code < 5000 ? "stop" : "retry");
}

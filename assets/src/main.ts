/**
 * One file for two places: the script of each page, and of the SharedWorker that holds the socket of all of them.
 *
 * A callback's way down, and its answer's way back up:
 *
 *   in each page       Dash's renderer  <->  `renderer` (in the place of its worker)  <->  `tab`  <->  `requests`  <->  `link`
 *   in the worker      `bridge` (which tab?)  <->  `socket` (one, again and again)  <->  the server
 *
 * `requests` keeps what waits, and posts it over HTTP when that takes too long; `link` finds the worker, or does without.
 */
import { Bridge } from "./bridge";
import { unique } from "./link";
import { page } from "./page";

if (typeof document === "undefined") {
  const bridge = new Bridge(unique("bridge"), navigator.locks);
  addEventListener("connect", (event) => bridge.accept((event as MessageEvent).ports[0]!));
} else page();

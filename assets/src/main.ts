/** One file for two places: the script of each page, and of the SharedWorker that holds the socket of all of them. */
import { Bridge } from "./bridge";
import { unique } from "./link";
import { page } from "./page";

if (typeof document === "undefined") {
  const bridge = new Bridge(unique("bridge"), navigator.locks);
  addEventListener("connect", (event) => bridge.accept((event as MessageEvent).ports[0]!));
} else page();

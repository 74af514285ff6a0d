/**
 * The page script. It runs before Dash's renderer, takes the place of its worker, and takes the page to the login when nobody
 * is signed in any more, or loads it again when it belongs to another session than the browser's.
 */
import { watchWorker } from "./dash-worker";
import { watchFetch } from "./fetch";
import { answered, cameBack, underWay } from "./leave";
import { read } from "./settings";
import { bridge } from "./tab";

/** Given by the build, which makes a script for each: then neither has in it what only the other one needs. */
declare const BRIDGE: boolean;

export function page(): void {
  const settings = read();
  if (!settings) return;
  const { prefix, login } = settings;
  const { fetch } = window;

  const isCurrent = async (): Promise<boolean> => {
    try {
      const url = `${prefix}_dash-quart-ws/session?endId=${encodeURIComponent(settings.page)}`;
      const { status } = await fetch(url, { cache: "no-store" });
      // A page that was made for nobody has lost nothing while its visitor is still nobody.
      if (!settings.session && status === 401) return true;
      answered(status, login);
      return status === 204;
    } catch {
      // The server is away, or there is no fetch: what is wrong shows when the page is used.
      return false;
    }
  };

  watchFetch(prefix, (status) => answered(status, login));
  const script = document.currentScript as HTMLScriptElement | null;
  if (typeof BRIDGE === "undefined" ? settings.bridge : BRIDGE) bridge(settings, script?.src ?? "", isCurrent);
  else watchWorker(settings.page, isCurrent, () => answered(409, login));
  for (const type of ["beforeunload", "pagehide", "submit"]) addEventListener(type, underWay, true);
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) {
      cameBack();
      void isCurrent();
    }
  });
}

/**
 * The page script. It runs before Dash's renderer, takes the place of its worker, and takes the page to the login when nobody
 * is signed in any more, or loads it again when it belongs to another session than the browser's.
 */
import { watchWorker } from "./dash-worker";
import { watchFetch } from "./fetch";
import { answered, cameBack, underWay } from "./leave";
import { read } from "./settings";
import { bridge } from "./tab";

export function page(): void {
  const settings = read();
  if (!settings) return;
  const { prefix, login, page, session } = settings;
  const { fetch } = window;

  const isCurrent = async (): Promise<boolean> => {
    try {
      const url = `${prefix}_dash-quart-ws/session?endId=${encodeURIComponent(page)}`;
      const { status } = await fetch(url, { cache: "no-store" });
      // A page that was made for nobody has lost nothing while its visitor is still nobody.
      if (!session && status === 401) return true;
      answered(status, login);
      return status === 204;
    } catch {
      // The server is away, or there is no fetch: what is wrong shows when the page is used.
      return false;
    }
  };

  watchFetch(prefix, (status) => answered(status, login));
  const script = document.currentScript as HTMLScriptElement | null;
  if (settings.bridge) bridge(settings, script?.src ?? "", isCurrent);
  else watchWorker(page, isCurrent, () => answered(409, login));
  for (const type of ["beforeunload", "pagehide", "submit"]) addEventListener(type, underWay, true);
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) {
      cameBack();
      void isCurrent();
    }
  });
}

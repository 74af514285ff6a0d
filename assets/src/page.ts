/**
 * The page script. It runs before Dash's renderer, and takes the page to the login when nobody is signed in any more, or
 * loads it again when it belongs to another session than the browser's.
 */
import { watchFetch } from "./fetch";
import { answered, cameBack, underWay } from "./leave";
import { read } from "./settings";
import { watchWorker } from "./worker";

const settings = read();
if (settings) {
  const { prefix, login, page, session } = settings;
  const { fetch } = window;

  const ask = async (): Promise<void> => {
    try {
      const url = `${prefix}_dash-quart-ws/session?endId=${encodeURIComponent(page)}`;
      const { status } = await fetch(url, { cache: "no-store" });
      // A page that was made for nobody has lost nothing while its visitor is still nobody.
      if (session || status !== 401) answered(status, login);
    } catch {
      // The server is away, or there is no fetch: what is wrong shows when the page is used.
    }
  };

  watchFetch(prefix, (status) => answered(status, login));
  watchWorker(page, ask, () => answered(409, login));
  for (const type of ["beforeunload", "pagehide", "submit"]) addEventListener(type, underWay, true);
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) {
      cameBack();
      void ask();
    }
  });
}

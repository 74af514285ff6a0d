/** What the server wrote into the page, in `<meta name="dash-quart-ws">`. */
export interface Settings {
  /** Where the browser finds the app: Dash's `requests_pathname_prefix`. */
  readonly prefix: URL;
  /** The login page; null when there is none. */
  readonly login: URL | null;
  /** The page token: names the session that the page was made for. No credential. */
  page: string;
  /** Public id of that session; null when the page was made for nobody. Both change when a callback logs somebody in. */
  session: string | null;
  /** Whether the socket is ours; else it is that of Dash's own worker. */
  readonly bridge: boolean;
  /** Whether the page shows how its connection is. */
  readonly status: boolean;
}

/** The page's settings; null when there are none that can be used, and then the page is left as Dash made it. */
export function read(): Settings | null {
  try {
    const meta = document.querySelector<HTMLMetaElement>("meta[name=dash-quart-ws]")!;
    const given = JSON.parse(meta.content);
    const prefix = ownPlace(given.prefix);
    return prefix && { ...given, prefix, login: ownPlace(given.login) };
  } catch {
    return null;
  }
}

/** A place of this site: no other site's, no script URL, which are nothing to navigate to. */
function ownPlace(path: string | null | undefined): URL | null {
  const { origin } = location;
  const url = new URL(path!, origin);
  return path && url.origin === origin ? url : null;
}

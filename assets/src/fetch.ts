/** Dash's own data routes, below the app's prefix. */
const ROUTES = /^_dash-(update-component|layout|dependencies)$/;

/** The header of an answer that is about the session, not a callback's own 401 or 409. */
export const MARK = "Dash-Session";

/**
 * See the status of each answer to a request for Dash's data that is about the session. Requests and answers pass as they are: the function that
 * was there is called with what it was given, by whoever wraps or replaces it.
 */
export function watchFetch(prefix: URL, answered: (status: number) => void): void {
  if (!window.fetch) return;
  window.fetch = new Proxy(window.fetch, {
    apply(fetch, self, args: Parameters<typeof window.fetch>) {
      const answer = fetch.apply(self, args);
      if (!ROUTES.test(targetOf(args[0]).replace(prefix.href, ""))) return answer;
      // The promise that is given back is also the one that is rejected, and noticed when nobody looks at it.
      return answer.then((response: Response) => {
        // Apart: whatever happens there, this is the answer.
        if (response.headers.has(MARK)) queueMicrotask(() => answered(response.status));
        return response;
      });
    },
  });
}

/** The URL that a request goes to, without its query; empty when it is none. */
function targetOf(input: unknown): string {
  try {
    const { origin, pathname } = new URL((input as Request).url ?? input, document.baseURI);
    return origin + pathname;
  } catch {
    return "";
  }
}

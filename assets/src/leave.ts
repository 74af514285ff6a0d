import * as banner from "./banner";

/** Milliseconds in which a tab is taken elsewhere at most `LIMIT` times, whatever its cookies are. */
export const WINDOW = 30_000;
export const LIMIT = 2;
/** Milliseconds for which a page that is on its way by itself is left alone. */
export const GRACE = 1_000;
/** In `sessionStorage`: when this tab was taken elsewhere. */
export const KEY = "dash-quart-ws:left";

/** The ways out of a page. */
export const ways = {
  reload: (): void => location.reload(),
  // The login takes the page's place, as it does when the server redirects: "back" leads to what was there before.
  replace: (url: string): void => location.replace(url),
};

// On the clock of `performance.now()`, which nobody sets back.
let aloneUntil = 0;
let leftUntil = 0;
let later: ReturnType<typeof setTimeout> | undefined;

/** An answer has this status: 401, nobody is signed in; 409, the page belongs to another session. */
export function answered(status: number, login: URL | null): void {
  if (status !== 401 && status !== 409) return;
  const now = performance.now();
  if (now < leftUntil || banner.isShown()) return;
  clearTimeout(later);
  if (now < aloneUntil) later = setTimeout(answered, aloneUntil - now, status, login);
  else leave(status === 401, login);
}

/** The page has begun to go elsewhere, or seems to: a download looks the same. */
export function underWay(): void {
  aloneUntil = performance.now() + GRACE;
}

/** The page has come back as it was left: what it knew then counts no more. */
export function cameBack(): void {
  clearTimeout(later);
  aloneUntil = leftUntil = 0;
  banner.hide();
}

function leave(isSignedOut: boolean, login: URL | null): void {
  const { href, origin, pathname } = location;
  const isLogin = login && [login.pathname, `${login.pathname}/`].includes(pathname);
  if (isSignedOut && isLogin) return; // it would lead to itself
  const next = encodeURIComponent(href.slice(origin.length));
  const url = login && !isLogin ? `${login}${login.search ? "&" : "?"}next=${next}` : "";
  if ((url || !isSignedOut) && mayLeave()) {
    leftUntil = performance.now() + WINDOW;
    if (isSignedOut) ways.replace(url);
    else ways.reload();
  } else {
    banner.show(
      isSignedOut ? "You are signed out." : "This page belongs to another login. Please sign in again.",
      url ? "Sign in" : "Reload",
      url || href.split("#")[0]!, // with its hash it would only scroll
    );
  }
}

/** Counts a departure. False where it cannot be counted: nothing would stop the next. */
function mayLeave(): boolean {
  try {
    const now = Date.now();
    // What is no recent time is dropped here, be it of a clock that was set back or a foreign value.
    const times = `${sessionStorage.getItem(KEY)}`.split(",").filter((time) => Math.abs(now - +time) < WINDOW);
    if (times.length >= LIMIT) return false;
    sessionStorage.setItem(KEY, `${[...times, now]}`);
    return true;
  } catch {
    return false;
  }
}

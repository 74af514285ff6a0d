/* What the demo does in the browser by itself: clientside callbacks. */
(() => {
  const STALE = 3000; // milliseconds without news; they come twice a second
  let last = null;
  let since = performance.now();

  /** Says whether what the page shows is still live. When the session ends, the backend's own script goes to the login. */
  function badge(news) {
    const moment = news?.[2] ?? null;
    if (moment !== last) since = performance.now();
    last = moment;
    if (performance.now() - since > STALE) return ["The connection was lost", "lost"];
    return last === null ? ["Connecting", ""] : ["Live", "on"];
  }

  /** What the status page and the dashboard show of the news. */
  function total(news) {
    return news?.slice(0, 2) ?? ["...", "..."];
  }

  /** Browsers look for a link's fragment before Dash has made the page. */
  function scroll(id) {
    if (location.hash === `#${id}`) document.getElementById(id)?.scrollIntoView();
  }

  window.dash_clientside = { ...window.dash_clientside, windward: { badge, total, scroll } };
})();

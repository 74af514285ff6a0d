/* What the demo does in the browser by itself: clientside callbacks. */
(() => {
  /** Live is what has news; what else there is to say about the connection comes as events of the document. */
  function badge(news) {
    return news ? ["Live", "on"] : ["Connecting", ""];
  }

  for (const [event, children] of [["close", "Reconnecting"], ["session-ended", "Signed out"]]) {
    document.addEventListener(`dash-ws:${event}`, () => dash_clientside.set_props("badge", { children, className: "lost" }));
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

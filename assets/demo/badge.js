/* Says whether what the page shows is still live. Dash's own browser code does not tell, and leaves a signed-out page as it is. */
(() => {
  const STALE = 2000; // milliseconds without a new server time; it comes every second
  const root = document.documentElement;
  const badge = document.createElement("a");
  badge.id = "badge";
  badge.setAttribute("role", "status");
  let shown = null;
  let since = performance.now();

  function say(state, text) {
    if (root.dataset.live === state) return;
    root.dataset.live = state;
    badge.textContent = text;
    if (state === "ended") badge.href = `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
    else if (state === "lost") badge.href = location.href;
    else badge.removeAttribute("href");
  }

  async function ask() {
    const signal = AbortSignal.timeout(5000);
    const answer = await fetch("/_dash-dependencies", { cache: "no-store", signal }).catch(() => null);
    if (answer?.status === 401) say("ended", "You are signed out. Sign in again");
    else if (answer) say("lost", "The connection was lost. Reload");
    else say("away", "The server is away");
  }

  async function look() {
    const clock = document.getElementById("clock")?.textContent ?? null;
    const now = performance.now();
    if (clock !== shown) {
      // Somebody has signed in again in another tab, and Dash's worker serves this one too: with a page of their own.
      if (root.dataset.live === "ended") return location.reload();
      shown = clock;
      since = now;
      if (/\d/.test(clock ?? "")) say("on", "Live");
    } else if (now - since > STALE && root.dataset.live !== "ended") await ask();
    setTimeout(look, 500);
  }

  document.body.append(badge);
  say("connecting", "Connecting");
  look();
})();

"""Where there is no SharedWorker, or none of ours may start, and where a Content-Security-Policy says what may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..server import wait_for
from .browser import PATIENCE, Browser, Site, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(180)

NO_WORKER = "delete window.SharedWorker;"
WORKER_THROWS = "window.SharedWorker = function () { throw new Error('none today'); };"
WORKER_IS_SILENT = """window.SharedWorker = class extends EventTarget {
  port = new MessageChannel().port1;
};"""


def works(site: Site, browser: Browser, alice: str) -> None:
    """Streams, answers, pushes, and goes to the login when the session ends."""
    browser.settle(alice)
    browser.click_until("go", lambda: browser.text("who") == f"{alice} 1", "an answer")
    assert site.ran("go", alice) == [(alice, 1, "websocket")]
    assert site.get(f"/push/{alice}/hello") == {"connections": 1}
    browser.wait_for_text("news", "hello")
    assert len(site.proxy.live) == 1
    browser.js("fetch('/logout', {method: 'POST'})")  # the page may be gone before the answer comes
    browser.wait_for_login()
    wait_for(lambda: site.running(alice) == [] and not site.proxy.live, PATIENCE, "nothing to be left")


@pytest.mark.parametrize("script", [NO_WORKER, WORKER_THROWS, WORKER_IS_SILENT], ids=["none", "throws", "silent"])
def test_without_a_shared_worker_streams_pushes_and_logouts_work(
    site: Site, browser: Browser, alice: str, script: str
) -> None:
    browser.witness(script)
    browser.log_in(alice)
    browser.at()
    works(site, browser, alice)
    assert site.proxy.most == 1


def test_without_a_shared_worker_each_tab_has_a_socket_of_its_own_that_goes_with_it(
    site: Site, browser: Browser, alice: str
) -> None:
    browser.witness(NO_WORKER)
    browser.log_in(alice)
    first, name = browser.tab, browser.arrive(alice)
    second = browser.another_tab(NO_WORKER)
    other = browser.arrive(alice)
    assert len(site.connections(alice)) == 2
    browser.close_tab(second, then=first)
    wait_for(lambda: other not in site.running(alice), 5, "the closed tab's stream to end")
    assert site.running(alice) == [name]
    site.proxy.cut("websocket")
    wait_for(lambda: len(site.streams(alice)) == 3, PATIENCE, "the stream to begin again")
    browser.settle(alice)


def test_without_a_shared_worker_bob_in_another_tab_is_not_answered_as_alice(
    site: Site, browser: Browser, alice: str, bob: str
) -> None:
    browser.witness(NO_WORKER)
    browser.log_in(alice)
    first = browser.tab
    browser.arrive(alice)
    browser.another_tab(NO_WORKER)
    browser.log_in(bob)
    browser.arrive(bob)
    browser.go_to(first)
    browser.settle(bob)
    browser.click_until("go", lambda: browser.text("who") == f"{bob} 1", "an answer")
    assert site.ran("go", alice) == []
    assert len(browser.noted("load")) <= 4


# -------------------------------------------------------------------------------------------- Content-Security-Policy

WITHOUT_THE_WORKER = ("nonce", "no-worker")
"""Policies under which no worker starts: a nonce is for scripts of a page, and a worker has none."""


@pytest.mark.parametrize("policy", ["hashes", "strict-dynamic", "nonce", "nonce-worker", "no-worker", "everywhere"])
def test_under_a_strict_policy_streams_and_logout_work_and_nothing_of_ours_is_in_its_way(
    browser_at: Callable[..., Browser], sites: Callable[..., Site], alice: str, policy: str
) -> None:
    browser, site = browser_at(CSP=policy), sites(CSP=policy)
    browser.log_in(alice)
    browser.at()
    browser.settle(alice)
    script = browser.js(
        "return [...document.scripts].map(one => one.src).find(src => src.includes('/_dash-quart-ws/'))"
    )
    assert digest_of(script)
    headers = browser.ajs("return (await fetch(location.href)).headers.get('content-security-policy')")
    assert "script-src" in headers
    blocked = [text for _, text in browser.noted("violation")]
    workers = [url for url in browser.workers() if "_dash-quart-ws" in url]
    if policy in WITHOUT_THE_WORKER:
        assert (workers, blocked) == ([], [f"worker-src {script}"])
    else:
        assert (workers, blocked) == ([script], [])
    works(site, browser, alice)

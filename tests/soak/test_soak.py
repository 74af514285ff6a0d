"""Hundreds of connections come and go, well-behaved and not: afterwards the server is where it was before.

In `make test` for a minute; `make soak SECONDS=600 SEED=…` for longer, or for a load that has failed before.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from ..raw import resident_megabytes
from ..server import serving
from .load import (
    REACHED,
    Site,
    is_dash_worker,
    is_refused,
    is_revoked,
    logs_out,
    loses_its_group,
    play,
    switches_user,
    uses_http,
    works,
)

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("SOAK_SECONDS") or 60)
SEED = os.environ.get("SOAK_SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"
CLIENTS = 500
"""Of one round; each opens a websocket or two, or sends a few requests."""

SETTLED_WITHIN = 30.0
"""Seconds after a round in which all that it has left has to be gone: the options' timeouts add up to a few."""

GROWTH = 8.0
"""Megabytes by which the process may be larger at the end than after the first round: allocators keep what they had."""

TROUBLE = re.compile(
    r"^.*(\bERROR\b|\bCRITICAL\b|Traceback|was destroyed but it is pending|never retrieved|never awaited"
    r"|ResourceWarning|goes on .* after).*$",
    re.MULTILINE,
)
PASSING = ("callback", "closing", "close frame", "dismissed", "heartbeat sweep", "writer")
"""Tasks that are there only as long as somebody is."""

POOLS = {"asyncio": (os.cpu_count() or 1) + 4, "dash-callback-": 4}
"""Threads that are made when they are needed, and kept: no more of them than this."""

EXACT = ("objects", "tasks", "sizes", "open files")


def opened(state: dict[str, Any]) -> int:
    """Connections that the app has heard of, and of whose end it has not."""
    return int(state["hooks"]["connect"]) - int(state["hooks"]["disconnect"])


def differences(began: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was."""
    found = [
        f"{kind}: {name}: {began[kind].get(name, 0)} -> {now[kind].get(name, 0)}"
        for kind in EXACT
        for name in sorted({*began[kind], *now[kind]})
        if began[kind].get(name, 0) != now[kind].get(name, 0)
    ]
    if opened(now) != opened(began):
        found.append(f"hooks: {now['hooks']}")
    if now["revocation objects"] != now["revocations"]:
        found.append(f"revocations: {now['revocation objects']} in memory, of which {now['revocations']} count")
    return found


async def greet(site: Site) -> dict[str, Any]:
    """The first visitors, for whom the server makes what it keeps; then the state in which it waits for others."""
    for part in (works, is_dash_worker, logs_out, is_revoked, switches_user, loses_its_group, is_refused, uses_http):
        await part(site, random.Random(f"{SEED}/{part.__name__}"), "first")
    return await quiet(site)


def busy(state: dict[str, Any]) -> bool:
    """Whether something goes on that will come to its end, with nobody there."""
    return not opened(state) and any(name.startswith(PASSING) for name in state["tasks"])


async def quiet(site: Site) -> dict[str, Any]:
    """Wait until nothing changes any more."""
    deadline, before = time.monotonic() + SETTLED_WITHIN, {}
    while (now := await site.get("/state")) != before or busy(now):
        assert time.monotonic() < deadline, json.dumps(now, indent=1)
        before = now
        await asyncio.sleep(6)  # longer than any timer that an ended connection leaves behind
    return now


async def settled(site: Site, began: dict[str, Any]) -> dict[str, Any]:
    """Wait until the server is as it was."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while found := differences(began, now := await site.get("/state")):
        assert time.monotonic() < deadline, "left over:\n" + "\n".join(found)
        await asyncio.sleep(0.2)
    return now


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 300)
async def test_after_hundreds_of_connections_have_come_and_gone_the_server_is_where_it_began(tmp_path: Path) -> None:
    began_at = time.monotonic()
    print(f"soak: {SECONDS:g} s, seed {SEED}")
    with serving(
        tmp_path, app="tests.soak.app:server", env={"DASH_QUART_WS_BROKER": f"sqlite:///{tmp_path}/b"}
    ) as server:
        site = Site(server)
        now = began = await greet(site)
        number, warm, memory, elapsed = 0, 0.0, 0.0, 0.0
        while number < 2 or elapsed + elapsed / number / 2 < SECONDS:
            site.codes.clear()
            before = now["hooks"]["connect"]
            failures = await play(site, f"{SEED}/{number}", CLIENTS)
            assert not failures, "\n".join([f"{len(failures)} clients failed", *failures[:5]])
            assert set(site.codes) >= REACHED, f"not every case came up: {site.codes}"
            now = await settled(site, began)
            memory = resident_megabytes(now["pid"])
            warm = warm or memory
            websockets, elapsed = now["hooks"]["connect"] - before, time.monotonic() - began_at
            print(f"soak: {elapsed:.0f} s, round {number}, {websockets} websockets, {memory:.1f} MB", flush=True)
            number += 1
        # Threads of pools are kept, and made when they are first needed.
        assert {name for name in now["threads"] if now["threads"][name] > began["threads"].get(name, 0)} <= set(POOLS)
        assert all(now["threads"].get(name, 0) <= size for name, size in POOLS.items()), now["threads"]
        assert memory - warm < GROWTH
        trouble = [found[0] for found in TROUBLE.finditer(server.log)]
        assert not trouble, "\n".join(trouble[:20])


@pytest.mark.soak
async def test_of_a_few_visitors_nothing_is_left_either(tmp_path: Path) -> None:
    """What the event loop throws away when there is much of it, it keeps when there is little: cancelled timers.

    It keeps them behind one that is due before them, as there is while somebody else is connected.
    """
    with serving(
        tmp_path, app="tests.soak.app:server", env={"DASH_QUART_WS_BROKER": f"sqlite:///{tmp_path}/b"}
    ) as server:
        site = Site(server)
        await greet(site)
        async with site.session("witness") as cookie, site.bridge(cookie):
            began = await quiet(site)
            for part in (works, uses_http, works):
                await part(site, random.Random(SEED), "second")
            await settled(site, began)

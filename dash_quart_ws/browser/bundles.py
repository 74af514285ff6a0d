"""The scripts and other files that browsers get from packages, this one's and Dash's: compressed once, kept in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gzip
import hashlib
from collections import OrderedDict
from importlib import resources
from typing import TYPE_CHECKING

from quart import Response, request

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

FOREVER = "public, max-age=31536000, immutable"
"""`Cache-Control` of what never changes under its name: a year is what "for good" is called there (RFC 9111, 8246)."""

WORKER_POLICY = "default-src 'none'; connect-src 'self' ws: wss:"
"""`Content-Security-Policy` of our own script. A page's policy does not hold in a shared worker: the one that came with
its script does (CSP3, 2.2 and HTML, "run a worker"), and without one it could connect to anywhere. 'self' is not enough:
browsers have differed about whether it means `wss:` too (CSP3, 6.7.2.8)."""

KEPT = 64 * 1024 * 1024
"""Bytes of bundles, plain and compressed, that one server keeps. All scripts and source maps of Dash's, and plotly.js, take
50 MB."""

WORTH_IT = 0.9
"""What is not at least so much smaller when it is compressed is sent as it is: images, fonts that are compressed already."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """One file, ready to be sent."""

    body: bytes
    gzipped: bytes | None
    """None where it saves little."""
    digest: str
    """The beginning of the body's SHA-256, as hex digits."""
    headers: tuple[tuple[str, str], ...]
    """`Content-Type`, `Cache-Control` and the like."""

    @classmethod
    def of(cls, body: bytes, headers: tuple[tuple[str, str], ...]) -> Bundle:
        """Compress; 30 ms of CPU for a megabyte, so not on the event loop."""
        gzipped = gzip.compress(body, 9, mtime=0)
        is_worth_it = len(gzipped) <= len(body) * WORTH_IT
        return cls(body, gzipped if is_worth_it else None, hashlib.sha256(body).hexdigest()[:16], headers)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return len(self.body) + len(self.gzipped or b"")

    def answer(self) -> Response:
        """The response to the current request for this bundle.

        It is compressed for those who take gzip; who has it already gets a 304 (RFC 9110, 13.1.2).
        """
        body, etag = self.body, self.digest
        compress = self.gzipped is not None and request.accept_encodings.quality("gzip") > 0
        if compress and self.gzipped is not None:
            body, etag = self.gzipped, f"{self.digest}-gzip"  # another spelling of the body, another strong ETag
        is_known = request.if_none_match.contains_weak(etag)
        response = Response(b"" if is_known else body, 304 if is_known else 200, dict(self.headers))
        if is_known:
            del response.headers["Content-Length"]
        elif compress:
            response.content_encoding = "gzip"
        response.set_etag(etag)
        if self.gzipped is not None:
            response.headers["Vary"] = "Accept-Encoding"
        return response


class Bundles:
    """The bundles that one server has sent, within a bound: the least recently used one goes first.

    Safe on the server's event loop only.
    """

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Hashable, tuple[Hashable, Bundle]] = OrderedDict()
        self._in_progress: dict[tuple[Hashable, Hashable], asyncio.Task[Bundle]] = {}

    async def get(self, file: Hashable, version: Hashable, read: Callable[[], Response]) -> Bundle:
        """The bundle of a file: from memory, or read and compressed in a thread, once for all who ask meanwhile.

        Args:
            file: stands for it. Who asks has seen to it that there are only so many.
            version: another one when the file has changed, taken before this call. What is kept of an older one goes.
            read: gives the response that an uncompressed request would get. It may block, and it may raise: then
                nothing is kept, and all who wait get the exception.
        """
        kept = self._kept.get(file)
        if kept is not None and kept[0] == version:
            self._kept.move_to_end(file)
            return kept[1]
        task = self._in_progress.get((file, version))
        if task is None:
            task = asyncio.create_task(self._make(file, version, read), name="bundle")
            self._in_progress[file, version] = task
            task.add_done_callback(functools.partial(self._made, (file, version)))
        return await asyncio.shield(task)  # who goes away takes it from nobody

    def _made(self, key: tuple[Hashable, Hashable], task: asyncio.Task[Bundle]) -> None:
        del self._in_progress[key]
        if not task.cancelled():
            task.exception()  # seen, also when all who waited have gone away

    async def _make(self, file: Hashable, version: Hashable, read: Callable[[], Response]) -> Bundle:
        response = await asyncio.to_thread(read)
        body: bytes = await response.get_data(as_text=False)
        headers = tuple((name, value) for name, value in response.headers.items() if name != "Content-Length")
        bundle = await asyncio.to_thread(Bundle.of, body, headers)
        self._keep(file, version, bundle)
        return bundle

    def _keep(self, file: Hashable, version: Hashable, bundle: Bundle) -> None:
        self._drop(file)
        if bundle.size > self._limit:
            return
        self._kept[file] = version, bundle
        self._size += bundle.size
        while self._size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, file: Hashable) -> None:
        _, old = self._kept.pop(file, (None, None))
        self._size -= old.size if old is not None else 0


BRIDGE, PLAIN, DEVTOOLS = "bridge", "plain", "devtools"
"""The page script, which is also the script of the worker that holds the websocket; that of pages with Dash's own; and what
pages have beside either of them in debug mode."""


@functools.cache
def script(name: str = BRIDGE) -> Bundle:
    """One of the three scripts, as built from `assets/src`."""
    body = resources.files(__package__).joinpath("static", f"{name}.js").read_bytes()
    headers = {
        "Content-Type": "text/javascript; charset=utf-8",
        "Cache-Control": FOREVER,
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": WORKER_POLICY,  # what the app's after_request sets takes its place
    }
    return Bundle.of(body, tuple(headers.items()))


def script_file(name: str = BRIDGE) -> str:
    """What a page asks for, below `<prefix>_dash-quart-ws/`. Another release has another name for another script."""
    return f"{name}.{script(name).digest}.js"


async def serve(file: str, *, devtools: bool = False) -> Response:
    """The view behind `<prefix>_dash-quart-ws/<file>`.

    Answers 404 for every name but those of this release: under the name of another one, a browser or a proxy would keep
    the wrong script for good. `devtools`: whether that script is among them.
    """
    for name in (BRIDGE, PLAIN, DEVTOOLS) if devtools else (BRIDGE, PLAIN):
        if file == script_file(name):
            return script(name).answer()
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response("no such script", 404, headers, content_type="text/plain; charset=utf-8")

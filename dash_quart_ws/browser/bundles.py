"""The scripts that this package gives to browsers: cached for good under a name that changes with them, compressed."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
from importlib import resources

from quart import Response, request

FOREVER = "public, max-age=31536000, immutable"
"""`Cache-Control` of what never changes under its name: a year is what "for good" is called there (RFC 9111, 8246)."""

WORKER_POLICY = "default-src 'none'; connect-src 'self' ws: wss:"
"""`Content-Security-Policy` of the script itself. A page's policy does not hold in a shared worker: the one that came with
its script does (CSP3, 2.2 and HTML, "run a worker"), and without one it could connect to anywhere. 'self' is not enough:
browsers have differed about whether it means `wss:` too (CSP3, 6.7.2.8)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """One script, as it was built from `assets/src`."""

    name: str
    body: bytes
    gzipped: bytes
    digest: str
    """The beginning of the body's SHA-256, as hex digits."""

    @classmethod
    def read(cls, name: str) -> Bundle:
        """The bundle of this name that the package holds."""
        body = resources.files(__package__).joinpath("static", f"{name}.js").read_bytes()
        return cls(name, body, gzip.compress(body, 9, mtime=0), hashlib.sha256(body).hexdigest()[:16])

    @property
    def file_name(self) -> str:
        """What a page asks for, below `<prefix>_dash-quart-ws/`. Another release has another name for another script."""
        return f"{self.name}.{self.digest}.js"

    def answer(self) -> Response:
        """The response to the current request for this bundle.

        It is compressed for those who take gzip; who has it already gets a 304 (RFC 9110, 13.1.2).
        """
        compress = request.accept_encodings.quality("gzip") > 0
        etag = f"{self.digest}-gzip" if compress else self.digest  # one for each spelling of the body
        response = Response(self.gzipped if compress else self.body, content_type="text/javascript; charset=utf-8")
        if compress:
            response.content_encoding = "gzip"
        if any(request.if_none_match.contains_weak(known) for known in (self.digest, f"{self.digest}-gzip")):
            response = Response(status=304)
        response.set_etag(etag)
        response.headers["Cache-Control"] = FOREVER
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = WORKER_POLICY  # what the app's after_request sets takes its place
        return response


@functools.cache
def bridge() -> Bundle:
    """The page script, which is also the script of the worker that holds the websocket."""
    return Bundle.read("bridge")


async def serve(file: str) -> Response:
    """The view behind `<prefix>_dash-quart-ws/<file>`.

    Answers 404 for every name but those of this release: under the name of another one, a browser or a proxy would keep
    the wrong script for good.
    """
    bundle = bridge()
    if file == bundle.file_name:
        return bundle.answer()
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response("no such script", 404, headers, content_type="text/plain; charset=utf-8")

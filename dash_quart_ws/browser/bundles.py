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
        return response


@functools.cache
def page() -> Bundle:
    """The page script."""
    return Bundle.read("page")


async def serve(file: str) -> Response:
    """The view behind `<prefix>_dash-quart-ws/<file>`.

    Answers 404 for every name but those of this release: under the name of another one, a browser or a proxy would keep
    the wrong script for good.
    """
    bundle = page()
    if file == bundle.file_name:
        return bundle.answer()
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response("no such script", 404, headers, content_type="text/plain; charset=utf-8")

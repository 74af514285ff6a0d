"""Certificates, proxies and a browser that trusts them."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from selenium import webdriver

from ..e2e.browser import FLAGS, PATIENCE
from ..server import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Certificate(NamedTuple):
    """Of `localhost` and 127.0.0.1, signed by itself."""

    path: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-keyout", str(made.key), "-out", str(made.path),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return made


class Visitor:
    """A browser at a site, wherever that is served."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--ignore-certificate-errors"):
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))

    def js(self, script: str) -> Any:
        return self.driver.execute_script(script)

    @property
    def path(self) -> str:
        parts = urlsplit(self.driver.current_url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def text(self, id: str) -> str:
        return str(self.js(f"return document.getElementById({json.dumps(id)})?.textContent ?? ''"))

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        return wait_for(condition, 3 * PATIENCE, what)

    def comes_and_goes(self, origin: str, below: str, expected: str) -> None:
        """Sign in, click, see what came of it and over what, and be led to the login when the session ends elsewhere."""
        self.driver.get(f"{origin}{below}/login/alice")
        self.driver.get(f"{origin}{below}/dash/")
        self.wait_for(lambda: self.text("who").startswith("alice None over a websocket"), "the first answer")
        self.js("document.getElementById('go').click()")
        self.wait_for(lambda: self.text("who") == expected, repr(expected))
        self.js(f"return fetch({json.dumps(f'{below}/logout')}).then(() => null)")
        self.wait_for(lambda: unquote(self.path) == f"{below}/login?next={below}/dash/", "the login, and back")
        assert self.text("login") == "Who are you?"


@pytest.fixture(scope="package")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    browser = Visitor(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()

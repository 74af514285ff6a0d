"""The demo as a user starts it, in a copy of its own."""

from __future__ import annotations

import re
import shutil
import sys
from typing import TYPE_CHECKING

from ..server import ROOT, Server, free_port, wait_for

if TYPE_CHECKING:
    from pathlib import Path

NO_SETTINGS = {"DASH_QUART_WS_BROKER": "", "DEMO_SECRET_KEY": "", "DEMO_HTTPS": "", "DEMO_HOSTS": ""}


class Demo:
    """`python quart_app.py`, which can be restarted. It keeps all its files beside itself."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.starts = 0
        shutil.copy(ROOT / "quart_app.py", folder)
        shutil.copytree(ROOT / "assets" / "demo", folder / "assets" / "demo")

    def start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-W", "ignore", str(self.folder / "quart_app.py"), "--port", str(self.port)]
        self.server = Server([*command, *self.options], self.port, self.folder / f"{self.starts}.log", NO_SETTINGS)
        self.server.wait_until_ready()

    def stop(self) -> int:
        return self.server.stop()

    @property
    def url(self) -> str:
        return self.server.origin

    @property
    def log(self) -> str:
        return self.server.log

    def password(self, name: str) -> str:
        """As the demo itself says when it starts."""
        found = re.search(rf"^  {name} with (\w+)", self.log, re.MULTILINE)
        if found is None:  # a restarted one says it anew
            found = wait_for(lambda: re.search(rf"^  {name} with (\w+)", self.log, re.MULTILINE))
        return found[1]

    def count(self, what: str, user: str) -> int:
        """How often the security log says that a user did, or met, something."""
        return len(re.findall(rf"security: {what} user='{user}'", self.log))

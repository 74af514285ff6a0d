"""The test app as a script, served by `app.run()`: `python -m tests.apps.run PORT`."""

from __future__ import annotations

import sys

from tests.apps.servers import app

if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))

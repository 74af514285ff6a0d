"""A module that a test changes while `app.run(debug=True)` serves it: `python -m tests.apps.reloaded FOLDER PORT [OPTION…]`.

`FOLDER` has `changing.py`, with a `TEXT`, and `assets/`. Options are arguments of `app.run` that are False.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module

from dash import Dash, Input, Output, html

from dash_quart_ws import QuartBackend

logging.basicConfig(stream=sys.stderr, level=logging.INFO)

if __name__ == "__main__":
    folder, port, *off = sys.argv[1:]
    sys.path.insert(0, folder)
    changing = import_module("changing")
    app = Dash(
        __name__,
        backend=QuartBackend(broker="memory:"),
        websocket_callbacks=True,
        assets_folder=f"{folder}/assets",
    )
    app.layout = html.Div([html.Div(changing.TEXT, id="text"), html.Button(id="go"), html.Div(id="out")])

    @app.callback(Output("out", "children"), Input("go", "n_clicks"))
    async def out(n_clicks):
        return f"{changing.TEXT} in {os.getpid()}"

    app.run(
        port=int(port),
        debug=True,
        dev_tools_hot_reload_interval=0.2,
        dev_tools_hot_reload_watch_interval=0.1,
        **dict.fromkeys(off, False),
    )

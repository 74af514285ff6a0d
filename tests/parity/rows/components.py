"""Components of Dash's own that have a way with callbacks, and what else an app may have beside its page."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from dash import Input, Output, State, dcc, html

from ..table import back, call, click, feature, reload, settle, type_in, upload, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dash import Dash


def digest(size: int) -> str:
    return hashlib.sha256(bytes(range(256)) * (size // 256) + bytes(size % 256)).hexdigest()


@feature(
    "`dcc.Download`: `send_string`, `send_bytes`, `send_data_frame`, `send_file`",
    click("string"),
    settle,
    click("bytes"),
    settle,
    click("frame"),
    settle,
    click("file"),
    shows={
        "downloads": {
            "s.txt": "text </ä>".encode(),
            "b.bin": bytes(range(256)),
            "f.csv": b",a\n0,1\n",
            "sent.bin": bytes(range(255, -1, -1)),
        }
    },
)
def download(app: Dash) -> None:
    sent = Path(tempfile.mkdtemp()) / "sent.bin"
    sent.write_bytes(bytes(range(255, -1, -1)))
    app.layout = [html.Button(id=id) for id in ("string", "bytes", "frame", "file")] + [dcc.Download(id="download")]
    output = Output("download", "data", allow_duplicate=True)

    @app.callback(output, Input("string", "n_clicks"), prevent_initial_call=True)
    def string(_clicks: int) -> Any:
        return dcc.send_string("text </ä>", "s.txt")

    @app.callback(output, Input("bytes", "n_clicks"), prevent_initial_call=True)
    async def some_bytes(_clicks: int) -> Any:
        return dcc.send_bytes(lambda file: file.write(bytes(range(256))), "b.bin")

    @app.callback(output, Input("frame", "n_clicks"), prevent_initial_call=True)
    def frame(_clicks: int) -> Any:
        return dcc.send_data_frame(pd.DataFrame({"a": [1]}).to_csv, "f.csv")

    @app.callback(output, Input("file", "n_clicks"), prevent_initial_call=True)
    def file(_clicks: int) -> Any:
        return dcc.send_file(sent)


def uploads(app: Dash) -> None:
    app.layout = [dcc.Upload(id="upload", children="here", max_size=-1), html.P(id="out")]

    @app.callback(
        Output("out", "children"), Input("upload", "contents"), State("upload", "filename"), prevent_initial_call=True
    )
    def read(contents: str, name: str) -> str:
        body = base64.b64decode(contents.partition(",")[2])
        return f"{name} {hashlib.sha256(body).hexdigest()}"


@feature("`dcc.Upload` of 1 kB", upload("upload", 1000), shows={"out": f"1000.bin {digest(1000)}"})
def upload_of_1_kb(app: Dash) -> None:
    uploads(app)


@feature(
    "`dcc.Upload` of 5 MB",
    upload("upload", 5_000_000),
    wait_for("out", "bin"),
    shows={"out": f"5000000.bin {digest(5_000_000)}"},
    over_http=("out.children",),
    says="goes over HTTP by itself: `message_bytes`",
)
def upload_of_5_mb(app: Dash) -> None:
    uploads(app)


@feature(
    "`dcc.Upload` of 50 MB",
    upload("upload", 50_000_000),
    wait_for("out", "bin"),
    shows={"out": f"50000000.bin {digest(50_000_000)}"},
    over_http=("out.children",),
    says="goes over HTTP by itself, for who is signed in: `upload_bytes`",
)
def upload_of_50_mb(app: Dash) -> None:
    uploads(app)


@feature(
    "`dcc.Store`: memory, local, session; what is kept over a reload",
    click("go"),
    settle,
    reload,
    shows={"out": {"memory": None, "local": 1, "session": 1}},
)
def store(app: Dash) -> None:
    kinds = ("memory", "local", "session")
    app.layout = [html.Button(id="go"), html.P(id="out"), *(dcc.Store(id=kind, storage_type=kind) for kind in kinds)]

    @app.callback([Output(kind, "data") for kind in kinds], Input("go", "n_clicks"), prevent_initial_call=True)
    def keep(clicks: int) -> list[int]:
        return [clicks] * 3

    @app.callback(
        Output("out", "children"),
        Input("out", "title"),
        *(Input(kind, "modified_timestamp") for kind in kinds),
        *(State(kind, "data") for kind in kinds),
    )
    async def tell(*values: Any) -> str:
        return json.dumps(dict(zip(kinds, values[-3:], strict=True)))


@feature(
    "`persistence`: what a user has typed is given to the callbacks of the next load",
    type_in("name", "typed"),
    settle,
    reload,
    shows={"out": "typed"},
)
def persistence(app: Dash) -> None:
    app.layout = [dcc.Input(id="name", value="given", persistence=True, persistence_type="session"), html.P(id="out")]

    @app.callback(Output("out", "children"), Input("name", "value"))
    def tell(value: str) -> str:
        return value


@feature(
    "`dcc.Location`: a place that a callback sets, with and without a reload; links; the browser's back",
    settle,
    click("inside"),
    settle,
    click("away"),
    wait_for("out", "^/there"),
    settle,
    click("link"),
    wait_for("out", "^/linked"),
    settle,
    back,
    wait_for("out", "^/there"),
    settle,
    shows={"path": "/there?q=1#part", "out": "/there ?q=1 #part", "loads": "2"},
)
def location(app: Dash) -> None:
    prefix = app.config.requests_pathname_prefix
    app.layout = [
        *(html.Button(id=id) for id in ("inside", "away")), dcc.Link("link", href=f"{prefix}linked", id="link"),
        dcc.Location(id="page", refresh="callback-nav"), dcc.Location(id="whole", refresh=True), html.P(id="out"),
        html.P(id="loads"), dcc.Store(id="count", storage_type="session", data=0),
    ]  # fmt: skip

    @app.callback(Output("out", "children"), Input("page", "pathname"), Input("page", "search"), Input("page", "hash"))
    def tell(path: str, search: str, part: str) -> str:
        return f"{path.replace(prefix, '/')} {search} {part}".strip()

    @app.callback(Output("page", "pathname"), Input("inside", "n_clicks"), prevent_initial_call=True)
    def inside(_clicks: int) -> str:
        return f"{prefix}here"

    @app.callback(Output("whole", "href"), Input("away", "n_clicks"), prevent_initial_call=True)
    async def away(_clicks: int) -> str:
        return f"{prefix}there?q=1#part"

    app.clientside_callback(
        "() => String(sessionStorage.loads = 1 + Number(sessionStorage.loads ?? 0))",
        Output("loads", "children"),
        Input("loads", "title"),
    )


@feature(
    "`dcc.Loading` while a callback runs",
    click("go"),
    wait_for("story", "over"),
    settle,
    shows={"#div.dash-spinner": 0, "~story": ["spins", "over"], "out": "1"},
)
def loading(app: Dash) -> None:
    app.layout = [html.Button(id="go"), dcc.Loading(html.P(id="out"), id="loading"), html.P(id="story")]

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def slow(clicks: int) -> int:
        time.sleep(0.4)
        return clicks

    app.clientside_callback(
        """() => {
            const spins = () => document.querySelector('.dash-spinner, .dash-default-spinner');
            const show = (children) => dash_clientside.set_props('story', {children});
            return new Promise((done) => {
                const look = setInterval(() => {
                    if (spins()) window.spun = !show('spins');
                    else if (window.spun) { clearInterval(look); done('over'); }
                }, 10);
            });
        }""",
        Output("story", "children"),
        Input("go", "n_clicks"),
        prevent_initial_call=True,
    )


@feature(
    "`api_endpoint`, beside the websocket",
    call("api/less", {"part": 2, "whole": 5}),
    call("api/less", [5, 2]),
    call("api/less", {"part": "2", "whole": 5}),
    call("api/less", {"whole": 5}),
    call("api/more", {"a": 1}),
    click("go"),
    shows={"answers": [[200, 3], [400, None], [500, None], [500, None], [200, {"more": 2}]], "out": "1", "other": ""},
    says="`POST` with JSON, by a script",
)
def api(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="out"), html.P(id="other")]
    prefix = app.config.requests_pathname_prefix

    @app.callback(
        Output("out", "children"), Input("go", "n_clicks"), State("go", "title"), prevent_initial_call=True,
        api_endpoint=f"{prefix}api/less",
    )  # fmt: skip
    def less(whole: int, part: int | None) -> Any:
        return whole if part is None else whole - part

    @app.callback(Output("other", "children"), Input("out", "title"), api_endpoint=f"{prefix}api/more")
    async def more(a: int | None) -> Any:
        return a and {"more": a + 1}


def ask_mcp(method: str, params: dict[str, Any], *within: str | int) -> Any:
    return call("_mcp", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, *within)


@feature(
    "MCP: a callback as a tool, beside the websocket",
    ask_mcp("tools/list", {}, "result", "tools", 0, "name"),
    ask_mcp("tools/list", {}, "result", "tools", 0, "inputSchema", "properties", "clicks", "type"),
    ask_mcp(
        "tools/call", {"name": "count", "arguments": {"clicks": 7}, "_meta": {"padding": "x" * 1_000_000}},
        "result", "structuredContent", "response",
    ),
    ask_mcp("tools/call", {"name": "nothing", "arguments": {}}, "error", "code"),
    click("go"),
    shows={
        "answers": [[200, "count"], [200, "integer"], [200, {"out": {"children": "7 clicks"}}], [200, -32601]],
        "out": "1 clicks",
    },
    enable_mcp=True,
)  # fmt: skip
def mcp(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="out")]

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), prevent_initial_call=True, mcp_enabled=True)
    def count(clicks: int) -> str:
        """Counts."""
        return f"{clicks} clicks"


LIBRARY = """
from dash.development.base_component import Component

__version__ = "1.0.0"
_js_dist = [{{"relative_package_path": "late.js", "namespace": "{name}"}}]
_css_dist = [{{"relative_package_path": "late.css", "namespace": "{name}"}}]


class Late(Component):
    _namespace, _type, _base_nodes = "{name}", "Late", ["children"]
    _prop_names = available_properties = ["id", "text"]
    _valid_wildcard_attributes = available_wildcard_properties = []
"""
SCRIPT = "window.{name} = {{Late: ({{id, text}}) => React.createElement('b', {{id, className: 'late'}}, text)}};"


def make_package(name: str, files: Mapping[str, str]) -> None:
    """A package that can be imported, and that nobody has imported yet."""
    folder = Path(tempfile.mkdtemp(prefix="package-")) / name
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text, "utf-8")
    sys.path.append(str(folder.parent))


@feature(
    "A component library first imported in a callback (`_allow_dynamic_callbacks=True`), and a callback made there",
    click("go"),
    settle,
    click("late-button"),
    shows={"late": "from a library", "made": "1", "color": "rgb(1, 2, 3)"},
    over_http=("place.children",),
    says="goes over HTTP by itself: the renderer loads libraries there only",
    suppress_callback_exceptions=True,
)
def library(app: Dash) -> None:
    name = app.config.requests_pathname_prefix.strip("/").replace("/", "_").replace("-", "_")
    files = {"__init__.py": LIBRARY, "late.js": SCRIPT, "late.css": ".late {{color: rgb(1, 2, 3)}}"}
    make_package(name, {file: text.format(name=name) for file, text in files.items()})
    app.layout = [html.Button(id="go"), html.Div(id="place"), html.P(id="made"), html.P(id="color")]

    @app.callback(
        Output("place", "children"), Input("go", "n_clicks"), prevent_initial_call=True, _allow_dynamic_callbacks=True
    )
    def build(_clicks: int) -> Any:
        @app.callback(Output("made", "children"), Input("late-button", "n_clicks"), prevent_initial_call=True)
        def made(clicks: int) -> int:
            return clicks

        late = importlib.import_module(name)
        return [late.Late(id="late", text="from a library"), html.Button(id="late-button")]

    app.clientside_callback(
        "() => getComputedStyle(document.getElementById('late')).color",
        Output("color", "children"),
        Input("made", "children"),
        prevent_initial_call=True,
    )

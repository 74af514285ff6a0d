"""Pages, whose registry is the whole process's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dash
from dash import Input, Output, dcc, html

from ..table import back, click, feature, go_to, settle, wait_for

if TYPE_CHECKING:
    from dash import Dash


def home() -> list[Any]:
    """The layout of a page that is made for each visit."""
    return [html.Button(id="go"), html.P(id="where"), html.P(id="out")]


def report(number: str = "", section: str = "", **query: str) -> list[Any]:
    return [html.P(json.dumps([number, section, query]), id="report"), html.Button(id="more"), html.P(id="count")]


@feature(
    "`use_pages`: pages with `path_template` and a query, their titles, links, the browser's back, and callbacks in them",
    click("go"),
    settle,
    click("to-report"),
    wait_for("report", "."),
    settle,
    click("more"),
    settle,
    click("to-other"),
    wait_for("report", "8"),
    settle,
    back,
    wait_for("report", "7"),
    settle,
    click("more"),
    shows={"path": "/report/7/intro?q=1", "report": ["7", "intro", {"q": "1"}], "count": "1", "title": "Report 7",
           "kept": "home 1"},
    site="pages",
    use_pages=True,
    pages_folder="",
    suppress_callback_exceptions=True,
)  # fmt: skip
def paged(app: Dash) -> None:
    if not dash.page_registry:
        dash.register_page("home", path="/", layout=home, title="Home")
        dash.register_page(
            "report",
            path_template="/report/<number>/<section>",
            layout=report,
            title=lambda number="", **_: f"Report {number}",
        )
    app.layout = [
        dcc.Link("report", href=app.get_relative_path("/report/7/intro?q=1"), id="to-report"),
        dcc.Link("other", href=app.get_relative_path("/report/8/end"), id="to-other"),
        html.P(id="kept"),
        dash.page_container,
    ]

    @app.callback(Output("kept", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def at_home(clicks: int) -> str:
        return f"home {clicks}"

    @app.callback(Output("count", "children"), Input("more", "n_clicks"), prevent_initial_call=True)
    async def more(clicks: int) -> int:
        return clicks


@feature(
    "`use_pages`: a page that there is not",
    click("to-nowhere"),
    wait_for("_pages_content", "404"),
    settle,
    shows={"path": "/nowhere", "_pages_content": "404 - Page not found"},
    site="pages",
    use_pages=True,
    pages_folder="",
    suppress_callback_exceptions=True,
)
def page_not_found(app: Dash) -> None:
    app.layout = [dcc.Link("nowhere", href=app.get_relative_path("/nowhere"), id="to-nowhere"), dash.page_container]


@feature(
    "`use_pages`: `redirect_from`, and the title and the description of the page that a browser loads",
    go_to("old-archive"),
    wait_for("archive", "0"),
    click("next"),
    shows={"path": "/archive", "title": "The archive", "archive": "1", "#meta[property='og:title'][content='The archive']": 1,
           "#meta[name=description][content='What was']": 1},
    site="pages",
    use_pages=True,
    pages_folder="",
    suppress_callback_exceptions=True,
)  # fmt: skip
def page_that_has_moved(app: Dash) -> None:
    # Dash redirects in the app that was made last when a page is registered.
    dash.register_page(
        "archive",
        path="/archive",
        title="The archive",
        description="What was",
        redirect_from=["/old-archive"],
        layout=lambda **_: [html.Button(id="next"), html.P("0", id="archive")],
    )
    app.layout = [dash.page_container]

    @app.callback(Output("archive", "children"), Input("next", "n_clicks"), prevent_initial_call=True)
    def turn(clicks: int) -> int:
        return clicks

"""What this package takes from Dash that Dash does not document, by name.

A release of Dash that renames one of these fails here, with the name. `_dash.py` is the only module that touches them, so
that is where it is mended; what stands there and is not listed here fails as well.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dash
import pytest
from dash import Dash, Input, Output, _callback, html
from dash.backends import get_backend
from dash.backends._quart import QuartDashServer, QuartRequestAdapter, QuartResponseAdapter
from dash.background_callback.managers import BaseBackgroundCallbackManager
from quart import Quart
from werkzeug.local import LocalProxy

from dash_quart_ws import QuartBackend
from dash_quart_ws._dash import assets_endpoint, is_own_first_request, to_json_is_known

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent / "dash_quart_ws"
SOURCE = ast.parse((PACKAGE / "_dash.py").read_text("utf-8"))
BUILD = Path(dash.__file__).parent / "dash-renderer" / "build"

app = Dash(__name__, backend=get_backend("quart"), assets_folder="none")
app.layout = html.Div()
app.callback(Output("out", "children"), Input("in", "value"))(lambda value: value)
component = html.Div()

ATTRIBUTES: dict[str, tuple[object, tuple[str, ...]]] = {
    "app": (
        app,
        (
            "_assets_files", "_background_manager", "_callback_list", "_dev_tools", "_get_signing_secret",
            "_got_first_request", "_inline_scripts", "_on_error", "_use_async", "_websocket_allowed_origins",
            "_websocket_callbacks", "_websocket_heartbeat_interval", "_websocket_max_workers",
            "callback_map", "mcp_callback_map", "registered_paths",
        ),
    ),
    "app.scripts": (app.scripts, ("_resources",)),
    "app.css": (app.css, ("_resources",)),
    "app.scripts._resources": (getattr(app.scripts, "_resources", None), ("_resources",)),
    "app.css._resources": (getattr(app.css, "_resources", None), ("_resources",)),
    "component": (component, ("_namespace", "_prop_names", "_type", "_valid_wildcard_attributes")),
    "dash._pages": (importlib.import_module("dash._pages"), ("_path_to_page",)),
    "sys": (sys, ("_getframe",)),
    "werkzeug": (LocalProxy, ("_get_current_object",)),
    "backend": (
        app.backend,
        ("_get_traceback", "_ws_shutdown_event", "error_handling_mode", "request_adapter", "response_adapter"),
    ),
}  # fmt: skip
"""Object -> its attributes that are touched. The underscored ones are all that `_dash.py` touches."""

CALLBACK_KEYS = {
    "allow_dynamic_callbacks", "background", "callback", "inputs", "inputs_state_indices", "manager", "no_output", "output",
    "outputs_indices",
}  # fmt: skip
"""Of an entry of `app.callback_map`."""

LISTED_KEYS = {"output", "persistent", "websocket"}
"""Of an entry of `app._callback_list`."""

CALLED_WITH = {
    "app", "app_on_error", "app_use_async", "background_callback_manager", "callback_context", "outputs_list",
}  # fmt: skip
"""What Dash's wrapper around a callback's function is given by name, beside the function's own arguments."""

OVERRIDDEN = {
    "add_redirect_rule", "add_url_rule", "before_request", "create_app", "register_callback_api_routes",
    "register_prune_error_handler", "register_timing_hooks", "run", "serve_callback", "serve_websocket_callback",
    "setup_backend", "shutdown_executor",
}  # fmt: skip
"""Methods of the backend that Dash calls, and that do something else here."""

INHERITED = {"add_url_rule", "get_callback_executor", "make_response", "serve_component_suites", "setup_index"}
"""Methods of Dash's backend that are used as they are."""

ADAPTED = {
    "request": {"_request", "args", "context", "full_path", "is_json", "path", "url"},
    "response": {"_quart_response", "_headers", "_cookies"},
}
"""What is replaced in Dash's adapters of a request and of a response."""

ROUTES = {
    "", "_dash-component-suites/<string:package_name>/<path:fingerprinted_path>", "_dash-dependencies", "_dash-layout",
    "_dash-update-component", "_dash-ws-callback", "_favicon.ico", "_reload-hash", "<path:path>",
}  # fmt: skip
"""Rules below an app's prefix that the guard, or the browser code, knows by name."""

SPOKEN = {
    "dash-ws-worker", "_dash-config", "callback_request", "callback_response", "connect", "connected", "disconnected",
    "get_props_request", "get_props_response", "prevent_update", "set_props", "set_props_batch", "csrf_token_name",
    "csrf_header_name", "endId", "_dash-update-component",
}  # fmt: skip
"""What Dash's renderer and our browser code say to one another."""

COUNTED = {
    "__REDUX_DEVTOOLS_EXTENSION_COMPOSE__", "UPDATE_RESOURCE_USAGE", "__dash_server", "__dash_upload", "__dash_download",
    "Server-Timing",
}  # fmt: skip
"""By what the script for Dash's dev tools knows what these count; they are in the dev bundle only."""


def imported() -> Iterator[str]:
    """Every name that `_dash.py` imports from Dash, with its module."""
    for node in ast.walk(SOURCE):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dash":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def used_of_modules() -> Iterator[str]:
    """What it takes from a module of Dash's by attribute."""
    modules = {name.rpartition(".")[2]: name for name in imported() if is_module(name)}
    for node in ast.walk(SOURCE):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield f"{modules[node.value.id]}.{node.attr}"


def is_module(dotted: str) -> bool:
    try:
        return inspect.ismodule(importlib.import_module(dotted))
    except ImportError:
        return False


def private_attributes() -> set[str]:
    """The underscored attributes that `_dash.py` touches and has not made itself."""
    own = {
        node.attr
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    own |= {node.name for node in ast.walk(SOURCE) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    touched = {
        (ast.unparse(node.value), node.attr)
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    return {name for owner, name in touched if not (owner == "self" and name in own)}


@pytest.mark.parametrize("name", sorted({*imported(), *used_of_modules()}))
def test_dash_has_every_name_that_is_imported_from_it(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert is_module(name) or hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, (_, names) in ATTRIBUTES.items() for name in names]
)
def test_dashs_objects_have_every_attribute_that_is_touched(owner: str, name: str) -> None:
    assert hasattr(ATTRIBUTES[owner][0], name), f"{owner}.{name}"


def test_no_private_attribute_is_touched_that_is_not_listed_here() -> None:
    listed = {name for _, names in ATTRIBUTES.values() for name in names if name.startswith("_")}
    assert private_attributes() == listed


def test_the_backend_touches_no_private_name_that_it_inherits_from_dash() -> None:
    """`self._x` in `backend.py` would be Dash's own, without a look of it."""
    inherited = {name for name in (*dir(QuartDashServer), *vars(QuartDashServer(Quart("x")))) if name.startswith("_")}
    tree = ast.parse((PACKAGE / "backend.py").read_text("utf-8"))
    touched = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr[:2] != "__"}
    assert touched & inherited == set()


@pytest.mark.parametrize("key", sorted(CALLBACK_KEYS))
def test_an_entry_of_the_callback_map_has_every_key_that_is_read(key: str) -> None:
    assert key in app.callback_map["out.children"]


@pytest.mark.parametrize("key", sorted(LISTED_KEYS))
def test_an_entry_of_the_callback_list_has_every_key_that_is_read(key: str) -> None:
    (listed,) = app._callback_list
    assert key in listed


def test_the_keys_of_a_callback_that_are_read_are_listed_here() -> None:
    read = {
        node.slice.value
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and ast.unparse(node.value).rpartition(".")[2] == "spec"
    }
    read |= {
        node.args[0].value
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("spec.get")
        and isinstance(node.args[0], ast.Constant)
    }
    assert read == CALLBACK_KEYS


@pytest.mark.parametrize("name", sorted(CALLED_WITH))
def test_dash_gives_its_wrapper_around_a_callback_what_it_is_given_here(name: str) -> None:
    assert f"{name}=" in inspect.getsource(app._execute_callback)


@pytest.mark.parametrize("name", sorted(OVERRIDDEN | INHERITED))
def test_dashs_backend_has_every_method_that_is_overridden_or_used(name: str) -> None:
    assert hasattr(QuartDashServer, name)


def test_the_methods_that_are_overridden_are_listed_here() -> None:
    public = {name for name in vars(QuartBackend) if not name.startswith("_")}
    assert {name for name in public if hasattr(QuartDashServer, name)} == OVERRIDDEN


@pytest.mark.parametrize("name", sorted(ADAPTED["request"]))
def test_dashs_request_adapter_has_what_is_replaced_in_it(name: str) -> None:
    assert hasattr(QuartRequestAdapter, name) or f"self.{name} =" in inspect.getsource(QuartRequestAdapter.__init__)


async def test_dashs_response_adapter_has_what_is_replaced_in_it() -> None:
    async with Quart("x").app_context():
        assert ADAPTED["response"] <= set(dir(QuartResponseAdapter()))


@pytest.mark.parametrize("rule", sorted(ROUTES))
def test_dash_serves_every_route_that_is_known_by_name(rule: str) -> None:
    assert f"/{rule}" in {one.rule for one in app.server.url_map.iter_rules()}


def test_dash_has_the_endpoint_of_the_assets() -> None:
    assert assets_endpoint(app) in app.server.view_functions


def test_what_dash_asks_to_run_before_the_first_request_is_told_from_what_an_app_asks() -> None:
    assert is_own_first_request(app._setup_server)
    assert not is_own_first_request(lambda: None)


def test_dashs_json_is_the_one_that_is_known() -> None:
    assert to_json_is_known()


def test_the_pages_router_has_the_ids_by_which_it_is_known() -> None:
    ids = vars(importlib.import_module("dash.dash"))
    assert (ids["_ID_LOCATION"], ids["_ID_CONTENT"]) == ("_pages_location", "_pages_content")


@pytest.mark.parametrize("name", ["_initialize_context", "_prepare_response"])
def test_dashs_wrapper_calls_functions_of_these_names(name: str) -> None:
    assert callable(getattr(_callback, name)), "it goes the long way then: tests/test_dash.py says whether it is known"


def test_mcp_logs_and_answers_under_the_names_that_are_known() -> None:
    server = importlib.import_module("dash.mcp._server")
    assert server.logger.name == "dash.mcp._server"


@pytest.mark.parametrize(
    "name", ["build_cache_key", "call_job_fn", "get_progress", "get_result", "result_ready", "terminate_job"]
)
def test_a_background_manager_has_the_methods_that_a_job_is_known_by(name: str) -> None:
    assert hasattr(BaseBackgroundCallbackManager, name)


@pytest.mark.parametrize("word", sorted(SPOKEN))
@pytest.mark.parametrize("bundle", ["dash_renderer.min.js", "dash_renderer.dev.js"])
def test_dashs_renderer_says_and_hears_what_our_browser_code_does(bundle: str, word: str) -> None:
    assert word in (BUILD / bundle).read_text("utf-8")


@pytest.mark.parametrize("word", sorted(COUNTED))
def test_dashs_dev_tools_count_under_the_names_that_are_known(word: str) -> None:
    assert word in (BUILD / "dash_renderer.dev.js").read_text("utf-8")


def test_a_patch_is_known_by_its_mark() -> None:
    assert "__dash_patch_update" in dash.Patch().to_plotly_json()

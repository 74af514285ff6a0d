"""The house rules that a reader relies on: which way imports run, and which modules touch whose private names."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dash_quart_ws"
ORDER = (
    "__init__", "__main__", "publisher", "backend", "reload", "extension", "cluster", "callbacks", "sessions", "connections",
    "browser", "wire", "brokers", "check", "_dash", "_plotly", "_quart", "_servers", "config", "exceptions",
)  # fmt: skip
"""From the top down: a module imports from what stands to its right, and from its own wing.

`publisher` is as high as `backend`, of which it needs nothing: both push and revoke, and make the same messages and receipts
of what is below. `__main__` uses it.
"""

WITHOUT_TESTS_OF_THEIR_OWN = {
    "__init__": "names only",
    "cluster": "what workers do together; the folder cluster, with real ones",
    "exceptions": "types only",
    "wire/messages": "dataclasses only; test_codec and test_protocol use every one",
    "brokers/base": "an interface; test_broker_contract holds every broker to it",
    "brokers/redis_outbox": "a part of the broker; test_redis and test_broker_contract",
    "brokers/redis_scripts": "what a server runs; test_redis and test_broker_contract",
    "connections/session": "a dataclass; sessions/test_sessions",
    "__main__": "the command line; test_main",
    "_dash": "Dash's private names; test_drift and test_dash",
    "_plotly": "plotly's private names; callbacks/test_serialise",
    "_quart": "Quart's private names; callbacks/test_effects and callbacks/test_jobs",
    "_servers": "one test for each real server; test_servers",
    "callbacks/websocket": "with a real Dash; test_backend and connections/test_connection",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def wing_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of every import of a module, `TYPE_CHECKING` ones included."""
    package = ["dash_quart_ws", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def private_parts(dotted: str) -> list[str]:
    return [part for part in dotted.split(".") if part.startswith("_") and not part.startswith("__")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downwards_only(path: Path) -> None:
    own = wing_of(path)
    assert own in ORDER, f"{own} has no place in the layout"
    for line, dotted in imports_of(path):
        parts = dotted.split(".")
        if parts[0] != "dash_quart_ws" or len(parts) == 1:
            continue
        wing = parts[1] if parts[1] in ORDER else "__init__"
        assert wing == own or ORDER.index(wing) > ORDER.index(own), f"{path.name}:{line} imports {dotted}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "wire").glob("*.py")), ids=name_of)
def test_the_wire_never_waits_and_knows_no_framework(path: Path) -> None:
    for line, dotted in imports_of(path):
        assert dotted.split(".")[0] not in ("asyncio", "quart", "quart_auth", "dash", "threading", "socket"), line
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), node.lineno


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "_dash"], ids=name_of)
def test_only_one_module_touches_private_names_of_dash(path: Path) -> None:
    for line, dotted in imports_of(path):
        if dotted.split(".")[0] == "dash":
            assert not private_parts(dotted), f"{path.name}:{line} imports {dotted}"
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and private_parts(node.attr):
            owner = ast.unparse(node.value)
            is_dash = owner in ("app", "dash_app", "self.app", "self._app", "dash", "hooks") or owner.endswith(
                ("._app", ".dash_app")
            )
            assert not is_dash, f"{path.name}:{node.lineno} touches {owner}.{node.attr}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "_servers"], ids=name_of)
def test_only_one_module_knows_the_servers(path: Path) -> None:
    for line, dotted in imports_of(path):
        top = dotted.split(".")[0]
        assert top not in ("uvicorn", "granian", "h11", "h2", "wsproto"), f"{path.name}:{line} imports {dotted}"
        if top == "hypercorn":
            assert not private_parts(dotted), f"{path.name}:{line} imports {dotted}"
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            private = private_parts(node.attr) and ast.unparse(node.value) in ("send", "self._send", "server_send")
            assert not private, f"{path.name}:{node.lineno} touches {ast.unparse(node)}"
            assert node.attr not in ("SO_LINGER", "TCP_USER_TIMEOUT"), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "_quart"], ids=name_of)
def test_only_one_module_knows_how_quart_keeps_its_contexts(path: Path) -> None:
    """They are others in each of its releases."""
    for line, dotted in imports_of(path):
        assert not dotted.startswith(("quart.globals", "quart.ctx")), f"{path.name}:{line} imports {dotted}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_reaches_into_another_modules_private_names(path: Path) -> None:
    for line, dotted in imports_of(path):
        parts = dotted.split(".")
        if parts[0] == "dash_quart_ws":
            private = [part for part in private_parts(dotted) if part not in ("_dash", "_plotly", "_quart", "_servers")]
            assert not private, f"{path.name}:{line} imports {dotted}"


def test_every_module_has_tests_of_the_same_name_or_a_reason_why_not() -> None:
    missing = []
    for path in MODULES:
        name = name_of(path)
        if path.stem == "__init__" or name in WITHOUT_TESTS_OF_THEIR_OWN:
            continue
        *wing, module = name.split("/")
        if not (ROOT / "tests").joinpath(*wing, f"test_{module}.py").exists():
            # A broker's own tests may lie beside the contract.
            missing.append(name)
    assert missing == []


def test_no_reason_is_given_for_a_module_that_has_gone() -> None:
    names = {name_of(path) for path in MODULES}
    assert set(WITHOUT_TESTS_OF_THEIR_OWN) <= names

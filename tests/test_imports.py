"""Who may import whom. The table of docs/architecture.md, held by a test."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import jetcamer
from tests.support.tools import ROOT

PACKAGE = ROOT / "jetcamer"

#: room → the rooms whose modules it may import, beside its own
ALLOWED = {
    "protocol": set(),
    "net": {"protocol"},
    "daemon": {"protocol"},
    "plugins": {"agent"},
    "agent": {"protocol", "net", "daemon", "plugins"},
    "hub": {"protocol", "net", "daemon"},
    "cli": {"protocol", "net", "daemon", "agent", "hub", "plugins"},
}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports(path: Path) -> set[str]:
    """The absolute names of modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def rooms(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names if name.startswith("jetcamer.")]
    return {part[1] for part in parts} & set(ALLOWED)


class ImportRulesTests(SynchronousTestCase):
    def modules(self) -> list[tuple[str, Path]]:
        return [
            (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path)
            for path in sorted(PACKAGE.rglob("*.py"))
            if path.parent != PACKAGE
        ]

    def test_every_room_is_in_the_table(self) -> None:
        self.assertEqual({room for room, _ in self.modules()}, set(ALLOWED))

    def test_rooms_import_only_what_the_table_allows(self) -> None:
        for room, path in self.modules():
            forbidden = rooms(imports(path)) - ALLOWED[room] - {room}
            self.assertEqual(forbidden, set(), f"{path.relative_to(ROOT)} imports {forbidden}")

    def test_the_protocol_knows_neither_twisted_nor_a_clock(self) -> None:
        for room, path in self.modules():
            if room == "protocol":
                outside = {name.split(".")[0] for name in imports(path)}
                self.assertEqual(
                    outside & {"twisted", "autobahn", "time", "datetime", "socket", "asyncio"},
                    set(),
                )

    def test_no_module_takes_the_reactor_at_its_top(self) -> None:
        for _, path in self.modules():
            for node in parse(path).body:
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    names = [alias.name for alias in node.names]
                    self.assertNotIn("reactor", names, str(path))

    def test_the_plugin_file_names_services_and_a_reactor_and_does_nothing(self) -> None:
        path = ROOT / "twisted/plugins/jetcamer_plugin.py"
        self.assertEqual(
            imports(path),
            {
                "twisted.application.reactors",
                "twisted.application.reactors.Reactor",
                "twisted.application.service",
                "twisted.application.service.ServiceMaker",
            },
        )
        docstring, *statements = parse(path).body
        self.assertIsInstance(docstring, ast.Expr)
        makers = []
        for node in statements:
            self.assertIsInstance(node, ast.ImportFrom | ast.Assign)
            if isinstance(node, ast.Assign):
                assert isinstance(node.value, ast.Call)
                assert isinstance(node.value.func, ast.Name)
                makers.append(node.value.func.id)
                for argument in node.value.args:
                    self.assertIsInstance(argument, ast.Constant)
        self.assertEqual(makers, ["ServiceMaker", "ServiceMaker", "Reactor"])

    def test_the_version_is_written_once(self) -> None:
        holders = [
            path.name
            for path in [*PACKAGE.rglob("*.py"), ROOT / "setup.py", ROOT / "pyproject.toml"]
            if f'"{jetcamer.__version__}"' in path.read_text("utf-8")
        ]
        self.assertEqual(holders, ["__init__.py"])

"""Which commands there are, and those that other packages add."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib import import_module, invalidate_caches
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from jetcamer.agent.commands import CommandRegistry, ICommand, find_plugins
from tests.support.tools import ROOT

PLUGIN = """
    from twisted.plugin import IPlugin
    from zope.interface import implementer
    from jetcamer.agent.commands import ICommand

    @implementer(IPlugin, ICommand)
    class Command:
        def __init__(self, name):
            self.name = name
        def run(self, args):
            return self.name
"""


@implementer(ICommand)
class Named:
    def __init__(self, name: object, timeout_seconds: object = None) -> None:
        self.name = name
        self.timeout_seconds = timeout_seconds

    def run(self, args: object) -> str:
        return "ran"


class RegistryTests(SynchronousTestCase):
    def test_by_name(self) -> None:
        first, second = Named("b"), Named("a")
        registry = CommandRegistry([first, second])
        self.assertEqual(registry.names(), ["a", "b"])
        self.assertIs(registry.get("b"), first)
        self.assertIsNone(registry.get("c"))

    def test_what_is_refused(self) -> None:
        registry = CommandRegistry([Named("taken")])
        for command, words in [
            (Named("taken"), "there is a command taken already"),
            (Named("No Name"), "'No Name' is not a command's name"),
            (Named(None), "None is not a command's name"),
            (Named("a", "soon"), "timeout_seconds must be a positive number of seconds"),
            (Named("a", 0), "timeout_seconds must be a positive number of seconds"),
            (Named("a", float("nan")), "timeout_seconds must be a positive number of seconds"),
        ]:
            with self.assertRaises(ValueError) as caught:
                registry.add(command)
            self.assertEqual(str(caught.exception), words)
        self.assertEqual(registry.names(), ["taken"])

    def test_a_plugin_takes_no_name(self) -> None:
        builtin = Named("ping")
        registry = CommandRegistry([builtin])
        with capturedLogs() as events:
            registry.add_found({"acme.ping": Named("ping"), "acme.more": Named("more")})
        self.assertIs(registry.get("ping"), builtin)
        self.assertIsNotNone(registry.get("more"))
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["the plugin acme.ping adds no command: there is a command ping already"],
        )


class PluginTests(SynchronousTestCase):
    """`find_plugins` over a plugin package made for the test."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        self.name = f"plugins_{abs(hash(str(folder)))}"
        self.package = folder / self.name
        self.package.mkdir(parents=True)
        self.write("__init__", "")
        self.write("good", PLUGIN + "\n    one = Command('one')\n    other = object()\n")
        self.patch(sys, "path", [str(folder), *sys.path])
        self.addCleanup(self.forget)

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == self.name]:
            del sys.modules[name]

    def write(self, module: str, text: str) -> None:
        (self.package / f"{module}.py").write_text(textwrap.dedent(text))

    def find(self) -> tuple[dict[str, str], list[str]]:
        """The names of what is found, and what the log says."""
        invalidate_caches()
        with capturedLogs() as events:
            found = find_plugins(import_module(self.name))
        names = {
            place.removeprefix(f"{self.name}."): command.name for place, command in found.items()
        }
        return names, [formatEvent(event) for event in events]

    def test_found(self) -> None:
        self.assertEqual(self.find(), ({"good.one": "one"}, []))
        self.assertEqual(self.find(), ({"good.one": "one"}, []), "and again")

    def test_nothing_is_written_beside_the_modules(self) -> None:
        """Whoever runs the agent may not write there, and need not be told."""
        self.find()
        names = {path.name for path in self.package.iterdir()}
        self.assertEqual(names - {"__pycache__"}, {"__init__.py", "good.py"})

    def test_a_module_that_cannot_be_imported_is_named(self) -> None:
        """In one line: a traceback of Twisted's stood beside it."""
        self.write("broken", "\nraise SystemExit('go\\naway')")
        names, lines = self.find()
        self.assertEqual(names, {"good.one": "one"})
        place = f"{self.package / 'broken.py'}, line 2"
        words = f"the plugin module {self.name}.broken cannot be imported: SystemExit: go away"
        self.assertEqual(lines, [f"{words} ({place})"])
        self.write("broken", "x x")
        _, (line,) = self.find()
        self.assertTrue(line.endswith("SyntaxError: invalid syntax (broken.py, line 1)"), line)

    def test_an_object_that_is_not_what_it_says_is_named(self) -> None:
        self.write("half", PLUGIN + "\n    half = Command('half')\n    del Command.run\n")
        names, (line,) = self.find()
        self.assertEqual(names, {"good.one": "one"})
        self.assertTrue(line.startswith(f"the plugin {self.name}.half.half is left out: "), line)
        self.assertNotIn("\n", line)

    def test_the_package_of_the_project_is_spread_over_the_path(self) -> None:
        folder = Path(self.mktemp()).absolute()
        plugins = folder / "jetcamer" / "plugins"
        plugins.mkdir(parents=True)
        text = textwrap.dedent(PLUGIN) + "\nacme = Command('acme')\n"
        (plugins / "acme_commands.py").write_text(text)
        program = "from jetcamer.agent.commands import find_plugins\nprint(find_plugins().keys())"
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(ended.stdout, "dict_keys(['jetcamer.plugins.acme_commands.acme'])\n")

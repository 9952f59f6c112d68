"""Patterns to files."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs import discovery
from jetcamer.agent.logs.discovery import (
    FULL_LOOK,
    Discovery,
    RefusedError,
    find,
    is_rotated_name,
    open_log,
)


class DiscoveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.realpath(self.mktemp())
        os.mkdir(self.folder)
        self.time = 0.0

    def make(self, *names: str) -> None:
        for name in names:
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
            with open(self.path(name), "w"):
                pass

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def find(self, *patterns: str) -> list[str]:
        found = find([self.path(pattern) for pattern in patterns])
        return [os.path.relpath(path, self.folder) for path in found]

    def test_a_path(self) -> None:
        self.make("a.log")
        self.assertEqual(self.find("a.log", "b.log"), ["a.log"])

    def test_patterns_in_a_name(self) -> None:
        self.make("a1.log", "a2.log", "b1.log", ".a3.log", "a1.txt")
        self.assertEqual(self.find("a*.log"), ["a1.log", "a2.log"])
        self.assertEqual(self.find("?1.log"), ["a1.log", "b1.log"])
        self.assertEqual(self.find("[!a]*.log"), ["b1.log"])
        self.assertEqual(self.find(".a*"), [".a3.log"])

    def test_patterns_in_folders(self) -> None:
        self.make("x/a.log", "y/a.log", "y/b.log", "z/c.log", ".h/a.log", "file")
        self.assertEqual(self.find("*/a.log"), ["x/a.log", "y/a.log"])
        self.assertEqual(self.find("[yz]/*.log"), ["y/a.log", "y/b.log", "z/c.log"])

    def test_folders_at_any_depth(self) -> None:
        self.make("a.log", "x/a.log", "x/y/a.log", "x/y/z/b.log", ".h/a.log")
        os.symlink(self.folder, self.path("x/loop"))
        self.assertEqual(self.find("**/a.log"), ["a.log", "x/a.log", "x/y/a.log"])
        self.assertEqual(self.find("**/*.log"), ["a.log", "x/a.log", "x/y/a.log", "x/y/z/b.log"])

    def test_links_to_folders_are_followed(self) -> None:
        self.make("x/a.log")
        os.symlink("x", self.path("y"))
        self.assertEqual(self.find("y/*.log"), ["y/a.log"])

    def test_each_once_and_with_its_first_pattern(self) -> None:
        self.make("a.log", "b.log")
        look = Discovery([self.path("b*"), self.path("*.log"), self.path("b*")])
        self.assertEqual(
            look.look(),
            {self.path("b.log"): self.path("b*"), self.path("a.log"): self.path("*.log")},
        )

    def test_compressed_ones_are_not_there(self) -> None:
        self.make(*(f"a.log{suffix}" for suffix in (*discovery.COMPRESSED, ".1.gz")))
        self.assertEqual(self.find("a*", "a.log.gz"), [])

    def test_nor_are_rotated_ones_beside_their_log(self) -> None:
        self.make("a.log", "a.log.1", "a.log-20240501", "a.log.old", "b.log.1", "a-8080.log")
        self.assertEqual(self.find("*"), ["a-8080.log", "a.log", "b.log.1"])

    def test_names_that_are_not_utf8(self) -> None:
        with open(os.fsencode(self.folder) + b"/\xff.log", "w"):
            pass
        look = Discovery([self.path("*")])
        self.assertEqual(look.look(), {})
        self.assertEqual(look.misnamed, [self.path("\\xff.log")])

    def test_a_folder_that_cannot_be_listed(self) -> None:
        def listdir(path: str) -> list[str]:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "listdir", listdir)
        look = Discovery([self.path("*")])
        look.look()
        self.assertEqual(look.unlisted, {self.folder: "Permission denied"})

    def test_folders_are_listed_again_only_when_they_changed(self) -> None:
        self.make("x/a.log", "y/a.log")
        for name in ("x", "y", "."):
            os.utime(self.path(name), (1000, 1000))
        look = Discovery([self.path("*/*.log")], now=lambda: 1010.0)
        listed = self.count_listings()
        for _ in range(FULL_LOOK - 1):
            self.assertEqual(len(look.look()), 2)
        self.assertEqual(len(listed), 3)
        look.look()
        self.assertEqual(len(listed), 6)  # once in a while, whatever the times say
        self.make("y/b.log")
        self.assertEqual(len(look.look()), 3)
        os.utime(self.path("y"), (1005, 1005))
        look.look()
        del listed[:]
        look.look()
        self.assertEqual(listed, [])
        os.rename(self.path("x"), self.path("z"))
        self.assertEqual(self.path("z/a.log") in look.look(), True)

    def test_a_time_of_change_is_not_trusted_while_it_is_fresh(self) -> None:
        self.make("a.log")
        os.utime(self.folder, (1000, 1000))
        look = Discovery([self.path("*.log")], now=lambda: 1001.0)
        look.look()
        self.make("b.log")
        os.utime(self.folder, (1000, 1000))  # within the same second, say
        self.assertEqual(len(look.look()), 2)

    def test_a_folder_that_comes_and_goes(self) -> None:
        look = Discovery([self.path("x/*.log")], now=lambda: 1e12)
        self.assertEqual(look.look(), {})
        self.make("x/a.log")
        self.assertEqual(len(look.look()), 1)
        os.rename(self.path("x"), self.path("y"))
        self.assertEqual(look.look(), {})

    def count_listings(self) -> list[str]:
        listed: list[str] = []
        real = os.listdir

        def listdir(path: str) -> list[str]:
            listed.append(path)
            return real(path)

        self.patch(os, "listdir", listdir)
        return listed


class OpenTests(SynchronousTestCase):
    def test_a_fifo_is_not_waited_for(self) -> None:
        path = self.mktemp()
        os.mkfifo(path)
        self.assertRaises(RefusedError, open_log, path)

    def test_nor_one_that_has_taken_the_place_of_a_file(self) -> None:
        path, fifo = self.mktemp(), self.mktemp()
        os.mkfifo(fifo)
        with open(path, "w"):
            pass
        real = os.stat

        def stat(name: str) -> os.stat_result:
            status = real(name)
            os.replace(fifo, path)
            return status

        self.patch(os, "stat", stat)
        before = len(os.listdir("/proc/self/fd"))
        error = self.assertRaises(RefusedError, open_log, path)
        self.assertIn("a FIFO", str(error))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_a_child_does_not_inherit_it(self) -> None:
        path = self.mktemp()
        with open(path, "w"):
            pass
        fd, _ = open_log(path)
        self.addCleanup(os.close, fd)
        self.assertFalse(os.get_inheritable(fd))


class RotatedNameTests(SynchronousTestCase):
    def test_what_rotation_makes(self) -> None:
        for name in (
            "a.log.1",
            "a.log.12",
            "a.log-20240501",
            "a.log-20240501.2",
            "a.log.2024-05-01",
            "a.log-20240501-1714521600",
            "a.log-2024-05-01T12:00:00Z",
            "a.log.old",
            "a.log.bak",
            "a-20240501.log",
            "a.1.log",
        ):
            self.assertTrue(is_rotated_name("a.log", name), name)

    def test_what_it_does_not(self) -> None:
        for name in (
            "a.log",
            "a.log.1.gz",
            "a-20240501.log.gz",
            "a.log.swp",
            "a.log~",
            "b.log.1",
            "a-b.log",
            "a.log1",
            "a.txt",
            "a-1.txt",
            "aa-1.log",
        ):
            self.assertFalse(is_rotated_name("a.log", name), name)
        self.assertFalse(is_rotated_name("log", "l-1og"))


class ImportTests(SynchronousTestCase):
    def test_an_agent_without_log_files_imports_little(self) -> None:
        program = (
            "import os, re, stat, time, fnmatch, sys, collections.abc, __future__\n"
            "before = set(sys.modules)\n"
            "from jetcamer.agent.logs import discovery\n"
            "print(*sorted(set(sys.modules) - before))"
        )
        found = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        self.assertEqual(
            {name for name in found.stdout.split() if not name.startswith("jetcamer")}, set()
        )
        self.assertLessEqual(
            {name for name in found.stdout.split() if name.startswith("jetcamer.")},
            {"jetcamer.agent", "jetcamer.agent.logs", "jetcamer.agent.logs.discovery"},
        )

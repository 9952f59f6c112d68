"""What lies beside a log, and how seldom it is looked at."""

from __future__ import annotations

import errno
import os
import time

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs import folders as module
from jetcamer.agent.logs.folders import Folders
from tests.support.logs import LogsMixin


class FoldersTests(LogsMixin, SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = self.capture_logs()
        self.folder = os.path.realpath(self.mktemp())
        os.mkdir(self.folder)
        self.log = self.path("a.log")
        self.later = 0.0
        self.folders = Folders(lambda: time.time() + self.later)
        self.opened = self.listed = 0
        self.error: OSError | None = None
        real_open, real_list = module.open_log, os.listdir

        def open_log(path: str) -> tuple[int, os.stat_result]:
            self.opened += 1
            if self.error is not None:
                raise self.error
            return real_open(path)

        def listdir(path: str) -> list[str]:
            self.listed += 1
            return real_list(path)

        self.patch(module, "open_log", open_log)
        self.patch(os, "listdir", listdir)
        for name, age in (("a.log", 0), ("a.log.1", 9), ("a.log.2", 10), ("b.log.1", 5)):
            self.write(name, age)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def write(self, name: str, age: float = 0) -> None:
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "a") as file:
            file.write(name)
        now = time.time()
        os.utime(self.path(name), (now, now - age))

    def siblings(self, real: str | None = None) -> list[str]:
        return [os.path.basename(file.path) for file in self.folders.siblings(self.log, real)]

    def test_the_oldest_first(self) -> None:
        self.assertEqual(self.siblings(), ["a.log.2", "a.log.1"])

    def test_where_there_is_no_folder(self) -> None:
        self.assertEqual(self.folders.siblings(self.path("none/a.log")), [])

    def test_what_is_no_file(self) -> None:
        os.mkfifo(self.path("a.log.3"))
        os.symlink("nowhere", self.path("a.log.4"))
        self.assertEqual(self.siblings(), ["a.log.2", "a.log.1"])

    def test_behind_a_link(self) -> None:
        self.write("d/real.txt.1", 20)
        os.link(self.path("a.log.1"), self.path("d/real.txt.2"))
        self.assertEqual(
            self.siblings(self.path("d/real.txt")), ["real.txt.1", "a.log.2", "a.log.1"]
        )

    def test_a_folder_that_has_just_changed_is_listed_in_each_turn(self) -> None:
        self.assertIsNone(self.folders.signature(self.folder))
        for turn in range(1, 4):
            self.siblings()
            self.folders.siblings(self.path("b.log"))
            self.assertEqual(self.listed, turn)
            self.folders.new_turn()

    def test_any_other_when_it_changed(self) -> None:
        self.later = 10
        before = self.folders.signature(self.folder)
        self.assertIsNotNone(before)
        for _ in range(3):
            self.siblings()
            self.folders.new_turn()
        self.assertEqual(self.listed, 1)
        self.write("a.log.3", 5)
        self.assertNotEqual(self.folders.signature(self.folder), before)
        self.assertIn("a.log.3", self.siblings())
        self.assertEqual(self.listed, 2)

    def test_a_file_is_opened_when_it_changed(self) -> None:
        for _ in range(3):
            self.siblings()
        self.assertEqual(self.opened, 2)
        os.rename(self.path("a.log.2"), self.path("a.log.3"))
        self.folders.new_turn()
        self.assertEqual(self.siblings(), ["a.log.3", "a.log.1"])
        self.assertEqual(self.opened, 2)
        self.write("a.log.1", 9)
        (_, file) = self.folders.siblings(self.log)
        self.assertEqual((file.head, self.opened), (b"a.log.1" * 2, 3))

    def test_one_that_has_just_changed_may_change_unnoticed(self) -> None:
        self.write("a.log.1")
        for opened in (2, 3):
            self.siblings()
            self.assertEqual(self.opened, opened)

    def test_what_nobody_asks_for_is_forgotten(self) -> None:
        self.later = 10
        for _ in range(3):
            self.siblings()
            self.folders.forget_unused()
        self.assertEqual((self.listed, self.opened), (1, 2))
        self.folders.forget_unused()
        self.siblings()
        self.assertEqual((self.listed, self.opened), (2, 4))

    def test_by_inode(self) -> None:
        inode = os.stat(self.path("b.log.1")).st_ino
        (file,) = self.folders.with_inode(self.folder, inode)
        self.assertEqual(file.path, self.path("b.log.1"))
        self.assertEqual(list(self.folders.with_inode(self.folder, 0)), [])

    def test_an_error_is_not_to_say_that_there_is_nothing(self) -> None:
        self.error = OSError(errno.EMFILE, "Too many open files")
        self.assertRaises(OSError, self.siblings)
        self.assertEqual(self.logged.lines, [])

    def test_where_rights_are_missing_it_is_said_once(self) -> None:
        self.error = PermissionError(errno.EACCES, "Permission denied")
        self.assertEqual(self.siblings(), [])
        self.assertEqual(self.siblings(), [])
        (line,) = self.logged.lines
        self.assertIn("a.log.1: cannot be read: Permission denied; lines that", line)

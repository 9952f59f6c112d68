"""Which files are followed, from where, and what becomes of their last lines."""

from __future__ import annotations

import errno
import os
import socket

from jetcamer.agent.logs import folders, restoring, rotation
from jetcamer.agent.logs.checkpoint import Checkpoint
from jetcamer.agent.logs.registry import EARLIER, MAX_GONE, TailSettings
from jetcamer.agent.logs.stream import Stream
from tests.agent.logs.tail_world import Reader, TailCase, open_files

#: More than a head needs to be recognised.
LONG = "x" * 80


class FirstSightTests(TailCase):
    def test_what_is_there_is_not_read(self) -> None:
        self.write("a.log", "old\n")
        self.start()
        self.wait()
        self.assertEqual(self.read(), [])
        self.write("a.log", "new\n")
        self.wait()
        self.assertEqual(self.read(), ["new"])

    def test_what_appears_later_is_read_whole(self) -> None:
        self.start()
        self.write("a.log", "one\n")
        self.wait(10)
        self.assertEqual(self.read(), ["one"])

    def test_what_appeared_while_nobody_looked_is_read_whole(self) -> None:
        self.start()
        self.restart()
        self.store()
        self.die()
        self.write("a.log", "one\n")
        self.start()
        self.assertEqual(self.read(), ["one"])

    def test_a_pattern_that_is_new_begins_at_the_end(self) -> None:
        self.start()
        self.write("b.txt", "old\n")
        self.restart("*.log", "*.txt")
        self.write("b.txt", "new\n")
        self.wait()
        self.assertEqual(self.read("b.txt"), ["new"])

    def test_of_many_only_some_are_logged_one_by_one(self) -> None:
        for number in range(25):
            self.write(f"{number:02}.log", "old\n")
        self.start()
        following = [line for line in self.logged.lines if "following" in line]
        self.assertEqual(len(following), 21)
        self.assertTrue(following[0].endswith("/00.log from byte 4 of 4"))
        self.assertEqual(following[-1], "[logs] following 5 more files")
        self.write("new.log", "")
        self.wait(10)
        self.assertTrue(self.logged.lines[-1].endswith("/new.log from byte 0 of 0"))

    def test_a_partial_line_waits(self) -> None:
        self.start()
        self.write("a.log", "on")
        self.wait(10)
        self.assertEqual(self.read(), [])
        self.write("a.log", "e\ntw")
        self.wait()
        self.assertEqual(self.read(), ["one"])

    def test_a_pattern_without_files_is_said_where_somebody_asked_for_it(self) -> None:
        self.start(defaults=False)
        self.assertEqual(len(self.said("there is no such file yet")), 1)

    def test_but_not_for_the_defaults(self) -> None:
        self.start()
        self.assertEqual(self.words(), [])


class RefusedTests(TailCase):
    def test_what_is_no_file_is_refused_once(self) -> None:
        os.mkdir(self.path("dir.log"))
        os.mkfifo(self.path("fifo.log"))
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        here = os.getcwd()
        os.chdir(self.folder)  # a socket's path has to be short
        try:
            server.bind("socket.log")
        finally:
            os.chdir(here)
        os.symlink("/dev/tty", self.path("tty.log"))
        self.start()
        self.wait(30)
        for name, what in (
            ("dir", "a directory"),
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
            ("tty", "a device"),
        ):
            self.assertEqual(len(self.said(f"{name}.log", what)), 1, name)
            self.assertIn(what, self.tail.ignored[self.path(f"{name}.log")])
        self.assertEqual(len(self.words()), 4)
        self.assertEqual(self.tail.streams, {})

    def test_a_name_that_is_not_utf8(self) -> None:
        with open(os.fsencode(self.folder) + b"/\xff.log", "w"):
            pass
        self.start()
        self.wait(20)
        self.assertEqual(len(self.said("\\xff.log", "not UTF-8")), 1)

    def test_what_is_gone_again_is_ignored_no_more(self) -> None:
        os.mkfifo(self.path("a.log"))
        self.start()
        self.remove("a.log")
        self.write("a.log", "one\n")
        self.wait(10)
        self.assertEqual(self.tail.ignored, {})
        self.assertEqual(self.read(), ["one"])

    def test_too_many(self) -> None:
        self.settings = TailSettings(max_files=2)
        for name in "abcd":
            self.write(f"{name}.log", "")
        self.start()
        self.wait(30)
        self.assertEqual(len(self.tail.streams), 2)
        self.assertEqual(len(self.said("2 files are not read")), 1)
        self.assertEqual(self.tail.refused, 2)
        self.write("e.log", "")
        self.wait(10)
        self.assertEqual(len(self.said("3 files are not read")), 1)

    def test_too_many_rotated_ones_that_are_needed_still(self) -> None:
        self.archive = True
        self.settings = TailSettings(max_open=3)
        self.start()
        self.uploader.paused = True
        for number in range(6):
            self.write("a.log", f"{number}\n")
            self.wait(10)
            self.rename("a.log", f"a.log.{number}")
        self.write("a.log", "6\n")
        self.wait(70)
        self.assertEqual(len(self.tail.streams), 3)
        self.assertEqual(len(self.said("1 files are not read: 3 are open already")), 1)
        self.uploader.go_on()
        self.wait(200)
        self.assertEqual(self.uploader.all(), [str(number) for number in range(7)])
        self.assertEqual(self.read(), [str(number) for number in range(7)])

    def test_one_file_by_three_names_is_read_once(self) -> None:
        self.write("a.log", "")
        os.link(self.path("a.log"), self.path("b.log"))
        os.symlink("a.log", self.path("c.log"))
        self.start()
        self.write("b.log", "one\n")
        self.wait(30)
        self.assertEqual(self.reader.all(), ["one"])
        self.remove("a.log")
        self.wait(20)
        self.write("b.log", "two\n")
        self.wait(200)
        self.write("b.log", "three\n")
        self.wait(20)
        self.assertEqual(self.reader.all(), ["one", "two", "three"])
        self.assertEqual(self.read("b.log"), ["two", "three"])


class ForbiddenTests(TailCase):
    """Where the rights are missing; root has them all, so they are taken away in `os`."""

    def forbid(self, *names: str) -> None:
        self.forbidden = {self.path(name) for name in names}

    def setUp(self) -> None:
        super().setUp()
        self.forbidden: set[str] = set()
        real_open, real_stat, real_list = os.open, os.stat, os.listdir

        def check(path: object) -> None:
            if any(f"{path}/".startswith(f"{one}/") for one in self.forbidden):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))

        def open_(path: object, *args: object, **kwargs: object) -> int:
            check(path)
            return real_open(path, *args, **kwargs)  # type: ignore[arg-type]

        def stat(path: object, *args: object, **kwargs: object) -> os.stat_result:
            if str(path) not in self.forbidden:
                check(path)
            return real_stat(path, *args, **kwargs)  # type: ignore[arg-type]

        def listdir(path: str) -> list[str]:
            check(path.rstrip("/"))
            return real_list(path)

        self.patch(os, "open", open_)
        self.patch(os, "stat", stat)
        self.patch(os, "listdir", listdir)

    def test_a_file_is_read_from_where_it_was_when_it_can_be(self) -> None:
        self.write("a.log", "old\n")
        self.forbid("a.log")
        self.start()
        self.write("a.log", "new\n")
        self.wait(30)
        self.assertEqual(len(self.said("a.log", "Permission denied", "adm")), 1)
        self.assertIn("Permission denied", self.tail.ignored[self.path("a.log")])
        self.forbid()
        self.wait(10)
        self.assertEqual(self.read(), ["new"])
        self.assertEqual(len(self.said("a.log: can be read now")), 1)
        self.assertEqual(self.tail.ignored, {})

    def test_also_after_a_restart(self) -> None:
        self.write("a.log", "old\n")
        self.forbid("a.log")
        self.start()
        self.write("a.log", "new\n")
        self.forbid()
        self.restart()
        self.assertEqual(self.read(), ["new"])

    def test_but_not_another_that_took_its_place(self) -> None:
        for restarted in (False, True):
            with self.subTest(restarted=restarted):
                name = f"{restarted}.log"
                self.write(name, LONG)
                self.forbid(name)
                self.start()
                self.wait(10)
                if restarted:
                    self.restart()
                self.rename(name, f"{name}.1")
                self.write(name, f"{LONG}{LONG}\n")
                self.wait(10)
                self.forbid()
                self.wait(10)
                self.assertEqual(self.read(name), [f"{LONG}{LONG}"])
                self.tail.stop()

    def test_one_that_appeared_later_is_read_whole(self) -> None:
        self.start()
        self.write("a.log", "one\n")
        self.forbid("a.log")
        self.wait(10)
        self.forbid()
        self.wait(10)
        self.assertEqual(self.read(), ["one"])

    def test_a_folder_is_seen_for_the_first_time_when_it_can_be_listed(self) -> None:
        os.mkdir(self.path("d"))
        self.write("d/a.log", "old\n")
        self.forbid("d")
        self.start("d/*.log")
        self.wait(30)
        self.assertEqual(len(self.said("/d: cannot be listed", "adm")), 1)
        self.restart("d/*.log")
        self.forbid()
        self.wait(10)
        self.write("d/a.log", "new\n")
        self.wait()
        self.assertEqual(self.read("d/a.log"), ["new"])
        self.write("d/b.log", "one\n")
        self.wait(10)
        self.assertEqual(self.read("d/b.log"), ["one"])

    def test_but_not_when_it_could_be_listed_before(self) -> None:
        os.mkdir(self.path("d"))
        self.start("d/*.log")
        self.forbid("d")
        self.write("d/a.log", "one\n")
        self.wait(20)
        self.restart("d/*.log")
        self.forbid()
        self.wait(10)
        self.assertEqual(self.read("d/a.log"), ["one"])

    def test_so_is_a_file_in_one_that_cannot_be_entered(self) -> None:
        os.mkdir(self.path("d"))
        self.write("d/a.log", "old\n")
        self.forbid("d")
        self.start("d/a.log")
        self.restart("d/a.log")
        self.forbid()
        self.wait(10)
        self.write("d/a.log", "new\n")
        self.wait()
        self.assertEqual(self.read("d/a.log"), ["new"])

    def test_a_followed_file_that_cannot_be_read_after_a_restart_waits(self) -> None:
        self.write("a.log", "")
        self.start()
        self.write("a.log", "one\n")
        self.wait()
        self.store()
        self.die()
        self.write("a.log", "two\n")
        self.forbid("a.log")
        self.start()
        self.wait(20)
        self.restart()
        self.assertEqual(len(self.said("a.log", "Permission denied")), 2)
        self.forbid()
        self.wait(10)
        self.assertEqual(self.read(), ["one", "two"])
        self.assertEqual(self.missed(), 0)


class RenamingTests(TailCase):
    def setUp(self) -> None:
        super().setUp()
        self.write("a.log", "")
        self.start()
        self.write("a.log", "1\n")
        self.wait()

    def rotate(self, *, keep: int = 3) -> None:
        for number in range(keep - 1, 0, -1):
            if os.path.exists(self.path(f"a.log.{number}")):
                self.rename(f"a.log.{number}", f"a.log.{number + 1}")
        self.rename("a.log", "a.log.1")

    def test_the_old_file_is_read_on_and_the_new_one_from_its_beginning(self) -> None:
        self.write("a.log", "2\n")
        self.rotate()
        self.write("a.log", "4\n")
        self.wait()
        self.write("a.log.1", "3\n")
        self.wait(50)
        self.write("a.log.1", "5\n")
        self.wait(50)
        self.write("a.log.1", "6\nlast")
        self.wait(60)
        self.assertEqual(self.read(), ["1", "2", "4", "3", "5", "6"])
        self.wait(3)
        self.assertEqual(self.read()[-1], "last")
        self.assertEqual(len(self.tail.streams), 1)
        self.write("a.log", "7\n")
        self.wait(30)
        self.assertEqual(self.read()[-1], "7")

    def test_a_new_file_that_comes_a_little_later(self) -> None:
        self.rotate()
        self.wait(1)
        self.write("a.log", "2\n")
        self.wait(1.25)
        self.assertEqual(self.read(), ["1", "2"])

    def test_two_rotations_between_two_looks(self) -> None:
        for number in (2, 3, 4):
            self.rotate(keep=5)
            self.write("a.log", f"{number}\n")
        self.wait()
        self.assertEqual(self.read(), ["1", "2", "3", "4"])
        self.wait(200)
        self.assertEqual(self.read(), ["1", "2", "3", "4"])
        self.assertEqual(len(self.tail.streams), 1)

    def test_what_was_rotated_before_is_none_of_ours(self) -> None:
        self.write("b.log", "")
        self.write("b.log.1", "old\n")
        self.wait(10)
        self.rename("b.log.1", "b.log.2")
        self.rename("b.log", "b.log.1")
        self.write("b.log", "new\n")
        self.wait(200)
        self.assertEqual(self.read("b.log"), ["new"])

    def test_nor_is_a_copy_that_somebody_made(self) -> None:
        self.write("a.log", f"{LONG}\n")
        self.wait()
        with open(self.path("a.log")) as file:
            self.write("a.log.bak", file.read())
        self.rotate()
        self.write("a.log", "3\n")
        self.wait(200)
        self.assertEqual(self.read(), ["1", LONG, "3"])

    def test_compressed_ones_are_ignored(self) -> None:
        self.rotate()
        self.write("a.log.2.gz", "zzz\n")
        self.write("a.log", "2\n")
        self.wait(100)
        self.assertEqual(self.read(), ["1", "2"])
        self.assertEqual(self.words(), [])

    def test_after_many_rotations_each_line_was_read_once(self) -> None:
        for number in range(2, 60):
            self.rotate(keep=50)
            self.write("a.log", f"{number}\n")
            self.wait(20)
        self.assertEqual(self.read(), [str(number) for number in range(1, 60)])
        self.restart()
        self.wait(30)
        self.assertEqual(len(self.read()), 59)

    def test_a_symlink_that_points_elsewhere(self) -> None:
        self.write("day1", "")
        os.symlink("day1", self.path("s.log"))
        self.wait(10)
        self.write("day1", "one\n")
        self.wait(20)
        self.write("day2", "two\n")
        os.symlink("day2", self.path("new"))
        self.rename("new", "s.log")
        self.wait(10)
        self.write("day1", "late\n")
        self.wait(3)
        self.assertEqual(self.read("s.log"), ["one", "two", "late"])

    def test_a_file_renamed_to_another_name_that_is_followed_too(self) -> None:
        self.rename("a.log", "z.log")
        self.wait(10)
        self.write("z.log", "2\n")
        self.wait(300)
        self.write("z.log", "3\n")
        self.wait(20)
        self.assertEqual(self.reader.all(), ["1", "2", "3"])

    def test_a_file_that_is_renamed_back(self) -> None:
        self.rotate()
        self.wait(3)
        self.rename("a.log.1", "a.log")
        self.wait(300)
        self.write("a.log", "2\n")
        self.wait(20)
        self.assertEqual(self.read(), ["1", "2"])

    def test_a_pattern_that_names_rotated_files_too(self) -> None:
        self.restart("a.log*")
        for number in (2, 3, 4, 5):
            self.rotate()
            self.wait(1)
            self.write("a.log", f"{number}\n")
            self.wait(100)
        self.assertEqual(self.reader.all(), ["1", "2", "3", "4", "5"])

    def test_dates_in_names_that_are_found_too(self) -> None:
        for day in (2, 3, 4):
            self.rename("a.log", f"a-2024050{day}.log")
            self.write("a.log", f"{day}\n")
            self.wait(100)
        self.assertEqual(self.reader.all(), ["1", "2", "3", "4"])
        self.restart()
        self.wait(30)
        self.assertEqual(len(self.reader.all()), 4)

    def test_deleted_and_made_again(self) -> None:
        self.write("a.log", "2\n")
        self.remove("a.log")
        self.write("a.log", "3\n")
        self.wait(100)
        self.remove("a.log")
        self.wait(100)
        self.assertEqual(len(self.tail.streams), 0)
        self.write("a.log", "4\n")
        self.wait(10)
        self.assertEqual(self.read(), ["1", "2", "3", "4"])

    def test_the_folder_is_renamed(self) -> None:
        os.mkdir(self.path("d"))
        self.restart("d/*.log")
        self.write("d/a.log", "1\n")
        self.wait(20)
        self.rename("d", "e")
        os.mkdir(self.path("d"))
        self.write("d/a.log", "2\n")
        self.wait(10)
        self.assertEqual(self.read("d/a.log"), ["1", "2"])


class LinkTests(TailCase):
    """The path is a symbolic link into another folder, where the file is rotated."""

    archive = True

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.path("data"))
        self.write("data/real.txt", f"{LONG}\n")
        os.symlink(self.path("data/real.txt"), self.path("a.log"))
        self.start()
        self.wait(1)

    def rotate(self, times: int) -> None:
        for number in range(times, 1, -1):
            self.rename(f"data/real.txt.{number - 1}", f"data/real.txt.{number}")
        self.rename("data/real.txt", "data/real.txt.1")

    def test_what_was_not_read_is_read_from_the_copy(self) -> None:
        self.write("data/real.txt", "one\n")
        self.copy_and_truncate("data/real.txt", "data/real.txt.1")
        self.write("data/real.txt", "two\n")
        self.wait(1)
        self.assertEqual(self.read(), ["one", "two"])
        self.assertEqual(self.missed(), 0)

    def test_two_rotations_between_two_looks(self) -> None:
        self.rotate(1)
        self.write("data/real.txt", "one\n")
        self.rotate(2)
        self.write("data/real.txt", "two\n")
        self.wait(10)
        self.assertEqual(self.read(), ["one", "two"])

    def test_rotated_while_the_agent_was_not_running(self) -> None:
        self.store()
        self.die()
        self.write("data/real.txt", "one\n")
        self.rotate(1)
        self.write("data/real.txt", f"two {LONG}\n")
        self.rotate(2)
        self.write("data/real.txt", "three\n")
        self.start()
        self.wait(10)
        self.assertEqual(self.read(), ["one", f"two {LONG}", "three"])
        self.assertEqual(self.uploader.all(), ["one", f"two {LONG}", "three"])
        self.restart()
        self.wait(10)
        self.assertEqual(len(self.read()), 3)

    def test_copied_and_truncated_meanwhile(self) -> None:
        self.store()
        self.die()
        self.write("data/real.txt", "one\n")
        self.copy_and_truncate("data/real.txt", "data/real.txt.1")
        self.write("data/real.txt", "two\n")
        self.start()
        self.wait(10)
        self.assertEqual(self.read(), ["one", "two"])

    def test_pointed_elsewhere_meanwhile(self) -> None:
        self.store()
        self.die()
        self.write("data/real.txt", "one\n")
        self.write("data/other.txt", "two\n")
        os.symlink("data/other.txt", self.path("new"))
        self.rename("new", "a.log")
        self.start()
        self.wait(10)
        self.assertEqual(self.read(), ["one", "two"])

    def test_rotated_files_that_are_found_too(self) -> None:
        self.restart("*.log", "data/*.txt.*")
        self.write("data/real.txt", "one\n")
        self.rotate(1)
        self.write("data/real.txt", "two\n")
        self.wait(100)
        self.restart("*.log", "data/*.txt.*")
        self.wait(20)
        self.assertEqual(self.reader.all(), ["one", "two"])


class TruncationTests(TailCase):
    def setUp(self) -> None:
        super().setUp()
        self.write("a.log", "")
        self.start()
        self.write("a.log", f"{LONG}\n1\n")
        self.wait()
        self.assertEqual(self.read(), [LONG, "1"])

    def test_what_was_not_read_is_read_from_the_copy(self) -> None:
        self.write("a.log", "2\n3")
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", "4\n")
        self.wait()
        self.assertEqual(sorted(self.read()), ["1", "2", "3", "4", LONG])
        self.wait(30)
        self.assertEqual(len(self.tail.streams), 1)
        self.assertEqual(self.missed(), 0)
        self.assertEqual(self.words(), [])

    def test_also_where_it_has_grown_beyond_what_it_was(self) -> None:
        self.write("a.log", "2\n")
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", "y" * 200 + "\n")
        self.wait()
        self.wait(30)
        self.assertEqual(sorted(self.read()), ["1", "2", LONG, "y" * 200])

    def test_also_where_it_is_as_long_as_it_was(self) -> None:
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", f"{LONG}\n9\n".replace("x", "y"))
        self.wait()
        self.assertEqual(self.read(), [LONG, "1", LONG.replace("x", "y"), "9"])

    def test_without_a_copy_nothing_read_is_lost(self) -> None:
        os.truncate(self.path("a.log"), 0)
        self.write("a.log", "2\n")
        self.wait()
        self.assertEqual(self.read(), [LONG, "1", "2"])
        self.assertEqual(self.words(), [])

    def test_a_partial_line_is_lost_and_counted(self) -> None:
        self.write("a.log", "part")
        self.wait()
        os.truncate(self.path("a.log"), 0)
        self.write("a.log", "2\n")
        self.wait()
        self.assertEqual(self.read(), [LONG, "1", "2"])
        self.assertEqual(self.missed(), 4)
        self.assertEqual(len(self.said("a.log: 4 bytes were lost")), 1)
        ((level, words, path),) = self.told
        self.assertEqual((level, path), ("warn", self.path("a.log")))
        self.assertTrue(words.startswith("4 bytes were lost before they were read: "), words)

    def test_a_short_file_is_recognised_while_its_copy_is_new(self) -> None:
        self.write("b.log", "1\n")
        self.wait(10)
        self.write("b.log", "2\n")
        self.copy_and_truncate("b.log", "b.log.1")
        self.wait()
        self.wait(100)
        self.assertEqual(self.read("b.log"), ["1", "2"])
        self.assertEqual(len(self.tail.streams), 2)

    def test_written_copied_and_truncated_while_it_seemed_empty(self) -> None:
        self.write("b.log", "")
        self.wait(10)
        self.write("b.log", "1\n")
        self.copy_and_truncate("b.log", "b.log.1")
        self.write("b.log", "2\n")
        self.wait(100)
        self.assertEqual(sorted(self.read("b.log")), ["1", "2"])

    def test_a_copy_that_is_younger_than_what_is_known_of_its_folder(self) -> None:
        """Within one turn, and where times of change are coarse."""
        self.patch(folders, "folder_signature", lambda folder: (1, 1, 1 << 62))
        self.write("b.log", f"{LONG}b\n")
        self.wait(10)
        self.write("a.log", "2\n")
        self.watches.fire()  # both are looked at in the same turns now, the new one first

        def more(stream: Stream) -> None:
            if stream.path == self.path("b.log") and not os.path.exists(self.path("a.log.1")):
                self.copy_and_truncate("a.log", "a.log.1")
            real(stream)

        real, self.reader.more = self.reader.more, more  # type: ignore[method-assign]
        self.write("a.log", "3\n")
        self.write("b.log", "4\n")
        self.copy_and_truncate("b.log", "b.log.1")
        self.wait(3)
        self.assertEqual(self.read("b.log"), [f"{LONG}b", "4"])
        self.assertEqual(self.read("a.log")[-2:], ["2", "3"])

    def test_the_inode_goes_on_as_another_stream(self) -> None:
        (before,) = self.tail.streams
        os.truncate(self.path("a.log"), 0)
        self.wait()
        (after,) = self.tail.streams
        self.assertNotEqual(before, after)
        self.assertEqual(self.reader.calls[-2:], [("closed", before), ("opened", after)])

    def test_a_copy_that_is_found_too_is_not_read(self) -> None:
        self.write("a.log", "2\n")
        self.wait()
        # As logrotate does with `copytruncate`, `dateext` and `extension .log`.
        with open(self.path("a.log")) as file:
            content = file.read()
        self.write("a-20240501.log", content[:10])
        self.wait(10)
        self.write("a-20240501.log", content[10:])
        self.wait(10)
        os.truncate(self.path("a.log"), 0)
        self.write("a.log", "3\n")
        self.wait(100)
        self.assertEqual(self.reader.all(), [LONG, "1", "2", "3"])
        self.restart()
        self.wait(100)
        self.assertEqual(self.reader.all(), [LONG, "1", "2", "3"])

    def test_several_times(self) -> None:
        for number in range(2, 30):
            self.write("a.log", f"{number}\n")
            if os.path.exists(self.path("a.log.1")):
                self.rename("a.log.1", "a.log.2")
            self.copy_and_truncate("a.log", "a.log.1")
            self.write("a.log", f"{number}{LONG}\n")
            self.watches.fire()
            self.wait(1 if number % 2 else 30)
        self.wait(100)
        numbers = [line.removesuffix(LONG) for line in self.read()]
        self.assertEqual(
            sorted(numbers), sorted(["", "1", *map(str, range(2, 30)), *map(str, range(2, 30))])
        )
        self.assertEqual(self.missed(), 0)


class LookingTests(TailCase):
    def setUp(self) -> None:
        super().setUp()
        self.write("a.log", "")

    def test_an_idle_file_costs_nothing(self) -> None:
        self.start()
        self.wait(6)
        self.assertEqual(len(self.watches.watched), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # the scan's
        self.write("a.log", "one\n")
        self.assertEqual(self.read(), [])
        self.watches.fire()
        self.assertEqual(self.read(), ["one"])
        self.wait(4)
        self.assertEqual(self.watches.watched, {})
        self.wait(2)
        self.assertEqual(len(self.watches.watched), 1)

    def test_what_is_written_while_the_watch_is_made(self) -> None:
        self.start()
        self.watches.before = lambda: self.write("a.log", "one\n")
        self.wait(5)
        self.assertEqual(self.watches.asked, 1)
        self.assertEqual(self.read(), ["one"])
        self.assertEqual(self.watches.watched, {})

    def test_an_idle_file_is_rotated_away(self) -> None:
        self.start()
        self.wait(6)
        self.rename("a.log", "a.log.1")
        self.write("a.log", "one\n")
        self.watches.fire()
        self.assertEqual(self.read(), ["one"])

    def test_a_scan_sees_what_a_watch_does_not(self) -> None:
        self.start()
        self.wait(6)
        self.write("a.log", "one\n")  # by another machine, say
        self.wait(4)
        self.assertEqual(self.read(), ["one"])

    def test_without_watches(self) -> None:
        self.watches.error = OSError(errno.ENOSPC, "no more watches")
        self.write("b.log", "")
        self.start()
        self.wait(8)
        self.assertEqual(len(self.said("no more watches")), 1)
        self.write("a.log", "one\n")
        self.wait(1)
        self.assertEqual(self.read(), ["one"])

    def test_a_busy_file_is_not_watched(self) -> None:
        self.start()
        for number in range(100):
            self.write("a.log", f"{number}\n")
            self.wait(0.25)
        self.assertEqual(self.watches.asked, 0)

    def test_an_error_concerns_its_file_alone(self) -> None:
        self.write("b.log", "")
        self.start()
        real = os.fstat
        (bad,) = [
            stream.source.fd for stream in self.tail.streams.values() if stream.path[-5] == "a"
        ]

        def fstat(fd: int) -> os.stat_result:
            if fd == bad:
                raise OSError(errno.EIO, "Input/output error")
            return real(fd)

        patched = self.patch(os, "fstat", fstat)
        self.write("a.log", "one\n")
        self.write("b.log", "two\n")
        self.wait(30)
        self.assertEqual(self.read("b.log"), ["two"])
        self.assertEqual(len(self.said("a.log", "Input/output error")), 1)
        patched.restore()
        self.wait(10)
        self.assertEqual(self.read(), ["one"])
        self.assertEqual(len(self.said("a.log: can be read again")), 1)

    def test_a_file_whose_server_forgot_it(self) -> None:
        self.start()
        self.write("a.log", "one\npart")
        self.wait()
        real = os.fstat

        def fstat(fd: int) -> os.stat_result:
            patched.restore()
            raise OSError(errno.ESTALE, "Stale file handle")

        patched = self.patch(os, "fstat", fstat)
        self.wait()
        self.assertIs(os.fstat, real)
        self.assertEqual(self.missed(), 4)
        self.assertEqual(self.tail.streams, {})

    def test_a_taker_that_raises_hurts_nobody_else(self) -> None:
        class Broken(Reader):
            def read(self, stream: Stream) -> None:
                if stream.end:
                    raise RuntimeError("no")

        good = self.reader
        self.reader = Broken()
        self.start()
        self.tail.add_archive(_Second(good))
        self.write("a.log", "one\n")
        self.wait()
        self.assertEqual(self.read(), [])
        self.assertEqual(good.lines[self.path("a.log")], ["one"])
        self.assertTrue(self.flushLoggedErrors(RuntimeError))

    def test_a_taker_that_meets_an_error_is_called_again(self) -> None:
        class Failing(Reader):
            failing = True

            def read(self, stream: Stream) -> None:
                if self.failing:
                    raise OSError(errno.EIO, "Input/output error")
                super().read(stream)

        self.reader = failing = Failing()
        self.start()
        self.write("a.log", "one\n")
        self.wait(20)
        self.assertEqual(len(self.said("a.log", "Input/output error")), 1)
        failing.failing = False
        self.wait(10)
        self.assertEqual(self.read(), ["one"])

    def test_a_taker_asks_for_a_look(self) -> None:
        self.start()
        self.write("a.log", "one\n")
        self.wait(10)
        (stream,) = self.tail.streams.values()
        os.truncate(self.path("a.log"), 0)
        self.write("a.log", "two\n")
        stream.read(0, 10)
        self.assertTrue(stream.stale)
        self.tail.check(stream)
        self.tail.check(stream)
        self.clock.advance(0)
        self.assertEqual(self.read(), ["one", "two"])

    def test_a_look_asked_for_may_find_it_over(self) -> None:
        self.start()
        self.write("a.log", LONG)
        self.wait(10)
        (stream,) = self.tail.streams.values()
        self.assertEqual(len(self.watches.watched), 1)
        os.truncate(self.path("a.log"), 0)
        self.tail.check(stream)
        self.clock.advance(0)
        self.assertEqual(self.said("cannot be read"), [])

    def test_stopped_with_a_look_asked_for(self) -> None:
        self.start()
        (stream,) = self.tail.streams.values()
        self.tail.check(stream)

    def test_changes_are_told(self) -> None:
        self.start()
        for happening in (
            lambda: self.write("b.log", ""),
            lambda: self.rename("a.log", "a.log.1"),
            lambda: os.truncate(self.path("b.log"), 0),
        ):
            before = self.changes
            happening()
            self.write("b.log", "one\n")
            self.wait(10)
            self.assertGreater(self.changes, before)


class _Second:
    """An archive that only reads."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def opened(self, stream: Stream) -> None:
        self.more(stream)

    def more(self, stream: Stream) -> None:
        assert stream.archive is not None
        stream.live = stream.archive
        self.reader.read(stream)

    def closed(self, stream: Stream) -> None:
        pass


class RestartTests(TailCase):
    def setUp(self) -> None:
        super().setUp()
        self.write("a.log", "")
        self.start()
        self.write("a.log", f"{LONG}\n1\n")
        self.wait()
        self.assertEqual(self.read(), [LONG, "1"])
        self.reader.lines.clear()

    def stop(self) -> None:
        self.store()
        self.die()

    def test_it_goes_on_where_it_was(self) -> None:
        self.stop()
        self.write("a.log", "2\n")
        self.start()
        self.assertEqual(self.read(), ["2"])
        self.write("a.log", "3\n")
        self.wait()
        self.assertEqual(self.read(), ["2", "3"])

    def test_the_id_stays(self) -> None:
        before = set(self.tail.streams)
        self.restart()
        self.assertEqual(set(self.tail.streams), before)

    def test_rotated_meanwhile(self) -> None:
        self.stop()
        self.write("a.log", "2\n")
        self.rename("a.log", "anything")
        self.write("a.log", "3\n")
        self.start()
        self.assertEqual(self.read(), ["2", "3"])
        self.write("anything", "4\n")
        self.wait(2)
        self.assertEqual(self.read(), ["2", "3", "4"])
        self.wait(100)
        self.assertEqual(len(self.tail.streams), 1)

    def test_rotated_long_ago(self) -> None:
        self.stop()
        self.write("a.log", "2\nlast")
        self.rename("a.log", "a.log.1")
        self.age("a.log.1")
        self.start()
        self.assertEqual(self.read(), ["2", "last"])
        self.wait(1)
        self.assertEqual(self.tail.streams, {})

    def test_rotated_twice_and_more(self) -> None:
        self.stop()
        self.write("a.log", "2\n")
        self.rename("a.log", "a.log.3")
        self.write("a.log.2", "3\n")
        self.write("a.log.1", "4\n")
        self.write("a.log", "5\n")
        self.start()
        self.wait(100)
        self.assertEqual(self.read(), ["2", "3", "4", "5"])
        self.restart()
        self.wait(100)
        self.assertEqual(self.read(), ["2", "3", "4", "5"])

    def test_rotated_before_and_between(self) -> None:
        self.rename("a.log", "a.log.1")
        self.write("a.log", "2\n")
        self.wait()
        self.stop()
        self.write("a.log.1", "3\n")
        self.rename("a.log.1", "a.log.2")
        self.write("a.log", "4\n")
        self.rename("a.log", "a.log.1")
        self.write("a.log", "5\n")
        self.start()
        self.wait(100)
        self.assertEqual(sorted(self.read()), ["2", "3", "4", "5"])

    def test_renamed_to_another_name_that_is_followed(self) -> None:
        self.stop()
        self.write("a.log", "2\n")
        self.rename("a.log", "z.log")
        self.age("z.log")
        self.start()
        self.wait(100)
        self.write("z.log", "3\n")
        self.wait(10)
        self.assertEqual(self.reader.all(), ["2", "3"])

    def test_copied_and_truncated_meanwhile(self) -> None:
        self.stop()
        self.write("a.log", "2\n")
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", "3\n")
        self.start()
        self.wait(100)
        self.assertEqual(self.read(), ["2", "3"])
        self.assertEqual(len(self.tail.streams), 1)

    def test_copied_and_truncated_twice_meanwhile(self) -> None:
        self.stop()
        self.write("a.log", "2\n")
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", "3\n")
        self.rename("a.log.1", "a.log.2")
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", "4\n")
        self.start()
        self.wait(100)
        self.assertEqual(self.read(), ["2", "3", "4"])

    def test_the_copy_is_remembered_across_a_restart(self) -> None:
        self.write("a.log", "2\n")
        self.copy_and_truncate("a.log", "a.log.1")
        self.wait()
        self.restart()
        self.wait(100)
        self.restart()
        self.wait(100)
        self.assertEqual(self.read(), ["2"])

    def test_deleted_meanwhile(self) -> None:
        self.write("a.log", "part")
        self.wait()
        self.stop()
        self.remove("a.log")
        self.write("a.log", "2\n")
        self.start()
        self.assertEqual(self.read(), ["2"])
        self.assertEqual(self.missed(), 4)
        self.assertEqual(len(self.said("4 bytes were lost")), 1)

    def test_a_reused_inode_is_a_new_file(self) -> None:
        (state,) = self.tail.state()[0]
        self.stop()
        self.remove("a.log")
        self.write("a.log", f"2\n{LONG}{LONG}\n")
        inode = os.stat(self.path("a.log")).st_ino
        stored = self.stored
        assert stored is not None
        # The file system need not give the number again: this one does.
        streams = tuple(_with(one, inode=inode) for one in stored.streams)
        self.stored = _with(stored, streams=streams)
        self.start()
        self.assertEqual(self.read(), ["2", LONG + LONG])
        self.assertNotIn(state.id, self.tail.streams)

    def test_an_inode_reused_by_another_log_s_file(self) -> None:
        self.write("b.log", "")
        self.wait(10)
        self.stop()
        stored = self.stored
        assert stored is not None
        self.remove("b.log")
        self.write("c.txt", "no log\n")
        inode = os.stat(self.path("c.txt")).st_ino
        streams = tuple(_with(one, inode=inode) if not one.size else one for one in stored.streams)
        self.stored = _with(stored, streams=streams)
        self.start()
        self.assertEqual(self.reader.all(), [])

    def test_a_reused_inode_among_the_known(self) -> None:
        self.rename("a.log", "a.log.1")
        self.wait(100)
        self.stop()
        stored = self.stored
        assert stored is not None
        self.remove("a.log.1")
        self.write("a.log", f"2\n{LONG}{LONG}\n")
        inode = os.stat(self.path("a.log")).st_ino
        paths = {
            path: _with(state, known=tuple(_with(one, inode=inode) for one in state.known))
            for path, state in stored.paths.items()
        }
        self.stored = _with(stored, paths=paths)
        self.start()
        self.assertEqual(self.read(), ["2", LONG + LONG])

    def test_another_device_number(self) -> None:
        self.stop()
        stored = self.stored
        assert stored is not None
        streams = tuple(_with(one, device=1) for one in stored.streams)
        self.stored = _with(stored, streams=streams)
        self.write("a.log", "2\n")
        self.start()
        self.assertEqual(self.read(), ["2"])

    def test_the_disk_lost_the_last_lines(self) -> None:
        self.write("a.log", f"{LONG}{LONG}{LONG}\n2\n3")
        self.wait()
        self.reader.lines.clear()
        self.stop()
        os.truncate(self.path("a.log"), 4 * len(LONG) + 4)
        self.start()
        self.write("a.log", "4\n")
        self.wait()
        self.assertEqual(self.read(), ["4"])
        self.assertEqual(self.missed(), 1)

    def test_the_pattern_is_not_wanted_any_more(self) -> None:
        self.stop()
        self.write("a.log", "2\n")
        self.age("a.log")
        self.start("*.txt")
        self.wait(5)
        self.assertEqual(self.tail.streams, {})
        self.write("a.log", "3\n")
        self.wait(100)
        self.assertEqual(self.read(), ["2"])

    def test_counts_are_kept(self) -> None:
        self.ledgers[self.path("a.log")].sent = 7
        self.restart()
        self.assertEqual(self.ledgers[self.path("a.log")].sent, 7)

    def test_paths_that_are_long_gone_are_added_up(self) -> None:
        for number in range(MAX_GONE + 10):
            self.write(f"{number}.log", "")
        self.wait(10)
        for number in range(MAX_GONE + 10):
            self.ledgers[self.path(f"{number}.log")].sent = 1
            self.remove(f"{number}.log")
        self.wait(100)
        self.assertEqual(self.ledgers[EARLIER].sent, 10)
        self.assertEqual(len(self.tail.state()[1]), MAX_GONE + 2)
        self.restart()
        self.assertEqual(sum(ledger.sent for ledger in self.ledgers.values()), MAX_GONE + 10)


def _with(value, **members):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(value, **members)


class ArchiveCase(TailCase):
    archive = True

    def setUp(self) -> None:
        super().setUp()
        self.write("a.log", "")
        self.start()

    def uploaded(self) -> list[str]:
        return self.uploader.all()


class DeletionTests(ArchiveCase):
    def setUp(self) -> None:
        super().setUp()
        self.uploader.paused = True
        self.write("a.log", f"{LONG}\n1\n2\n")
        self.wait()

    def kept(self) -> int:
        return self.spool.used

    def test_the_unread_rest_goes_to_the_spool(self) -> None:
        self.remove("a.log")
        self.wait(2)
        self.assertEqual(self.kept(), len(LONG) + 5)
        (stream,) = self.tail.streams.values()
        self.assertFalse(stream.complete)
        with open(f"/proc/self/fd/{stream.source.fd}", "ab") as file:
            file.write(b"late\nlast")
        self.wait(61)
        self.wait(3)
        self.assertEqual(self.read(), [LONG, "1", "2", "late", "last"])
        self.assertTrue(os.readlink(f"/proc/self/fd/{stream.source.fd}").endswith(".log"))
        self.assertIn(self.spool_folder, os.readlink(f"/proc/self/fd/{stream.source.fd}"))
        self.uploader.go_on()
        self.assertEqual(self.uploaded(), [LONG, "1", "2", "late", "last"])
        self.wait(1)
        self.assertEqual(self.tail.streams, {})
        self.wait(20)
        self.assertEqual(self.kept(), 0)
        self.assertEqual(self.missed(), 0)

    def test_where_nothing_waits_nothing_is_kept(self) -> None:
        self.uploader.go_on()
        for _ in range(2):
            self.tail.state()
        self.remove("a.log")
        self.wait(10)
        self.assertEqual(self.kept(), 0)

    def test_what_was_settled_a_moment_ago_is_kept_too(self) -> None:
        self.tail.state()
        self.uploader.go_on()
        self.tail.state()  # which may not be on disk yet
        self.remove("a.log")
        self.wait(10)
        self.assertEqual(self.kept(), len(LONG) + 5)

    def test_a_rotated_file_is_deleted_later(self) -> None:
        self.rename("a.log", "a.log.1")
        self.wait(100)
        (stream,) = self.tail.streams.values()
        self.assertTrue(stream.complete)
        self.remove("a.log.1")
        self.wait(1)
        self.assertEqual(self.kept(), len(LONG) + 5)
        self.uploader.go_on()
        self.assertEqual(self.uploaded(), [LONG, "1", "2"])

    def test_the_spool_is_found_after_a_restart(self) -> None:
        self.remove("a.log")
        self.write("a.log", "3\n")
        self.wait(2)
        self.restart()
        self.uploader.go_on()
        self.wait(1)
        self.assertEqual(sorted(self.uploaded()), ["1", "2", "3", LONG])
        self.assertEqual(self.read(), [LONG, "1", "2", "3"])
        self.assertEqual(self.missed(), 0)
        self.wait(30)
        self.assertEqual(self.kept(), 0)

    def test_the_spool_outlives_a_stop_that_no_checkpoint_knows_of(self) -> None:
        self.remove("a.log")
        self.wait(2)
        self.store()
        self.uploader.go_on()
        self.wait(62)
        self.assertEqual(self.tail.streams, {})
        self.die()
        self.start()
        ledger = self.ledgers[self.path("a.log")]
        self.assertEqual((ledger.archived, ledger.given_up, ledger.missed_bytes), (3, 0, 0))
        self.restart()
        self.wait(20)
        self.assertEqual(self.kept(), 0)

    def test_a_deleted_file_is_not_remembered(self) -> None:
        """Another may get its inode at once, and begin with the same banner."""
        self.uploader.go_on()
        self.remove("a.log")
        self.wait(100)
        self.assertEqual(self.tail.streams, {})
        self.assertEqual(self.tail.state()[1][self.path("a.log")].known, ())

    def test_in_slices(self) -> None:
        self.spool.limit = 64 << 20
        self.write("a.log", "y" * (5 << 20) + "\n")
        self.wait()
        self.remove("a.log")
        self.wait(0.25)
        kept: list[int] = []
        self.clock.callLater(1, lambda: kept.append(self.kept()))
        self.wait(1)
        self.assertEqual(kept, [1 << 20])
        self.assertEqual(self.kept(), (5 << 20) + len(LONG) + 6)

    def test_stopped_in_the_middle(self) -> None:
        self.write("a.log", "y" * (5 << 20) + "\n")
        self.spool.limit = 64 << 20
        self.wait()
        self.remove("a.log")
        self.wait(0.25)
        self.clock.callLater(1, lambda: (self.store(), self.die()))
        self.wait(1)
        self.limit = 64 << 20
        self.start()
        self.uploader.go_on()
        self.wait(1)
        self.assertEqual(self.uploaded()[:3], [LONG, "1", "2"])
        ledger = self.ledgers[self.path("a.log")]
        self.assertEqual((ledger.given_up, ledger.missed_bytes), (1, 0))

    def test_no_room(self) -> None:
        self.spool.limit = len(LONG) + 4
        self.remove("a.log")
        self.wait(70)
        self.assertEqual(self.kept(), len(LONG) + 3)
        # What was planned from it is the archive's to count.
        (stream,) = self.tail.streams.values()
        self.assertEqual(stream.end, len(LONG) + 3)
        self.uploader.go_on()
        self.wait(2)
        self.assertEqual(self.tail.streams, {})
        self.assertEqual(self.missed(), 0)
        ledger = self.ledgers[self.path("a.log")]
        self.assertEqual(ledger.archived + ledger.given_up, 3)

    def test_no_room_for_what_is_planned_is_said_at_once(self) -> None:
        (stream,) = self.tail.streams.values()
        self.assertTrue(stream.batches)
        self.spool.limit = len(LONG) + 1
        self.remove("a.log")
        self.wait(70)
        self.assertEqual(len(self.said("lines that wait for S3 are lost", "spool is full")), 1)
        self.assertTrue(any("spool is full" in words for _, words, _ in self.told))

    def test_no_room_at_all(self) -> None:
        self.spool.limit = 0
        (stream,) = self.tail.streams.values()
        stream.batches.clear()  # it has not planned anything
        self.uploader.planning = False
        self.remove("a.log")
        self.wait(70)
        self.assertEqual(self.tail.streams, {})
        self.assertEqual(self.missed(), len(LONG) + 5)
        self.assertEqual(len(self.said("bytes were lost", "spool is full")), 1)

    def test_truncated_without_a_copy(self) -> None:
        os.truncate(self.path("a.log"), 0)
        self.wait()
        self.assertEqual(self.ledgers[self.path("a.log")].given_up, 3)
        self.assertEqual(self.missed(), 0)

    def test_truncated_with_a_copy(self) -> None:
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", "3\n")
        self.wait()
        self.restart()
        self.uploader.go_on()
        self.assertEqual(self.uploaded(), [LONG, "1", "2", "3"])
        self.wait(62)
        self.assertEqual(len(self.tail.streams), 1)

    def test_a_copy_that_is_shorter_than_what_was_seen(self) -> None:
        with open(self.path("a.log")) as file:
            self.write("a.log.1", file.read()[:-2])
        os.truncate(self.path("a.log"), 0)
        self.wait()
        self.uploader.go_on()
        self.wait(2)
        self.assertEqual(len(self.tail.streams), 1)
        ledger = self.ledgers[self.path("a.log")]
        self.assertEqual((ledger.archived, ledger.given_up), (1, 2))
        self.assertEqual(self.read(), [LONG, "1", "2"])

    def test_deleted_while_the_agent_was_not_running(self) -> None:
        self.store()
        self.die()
        self.remove("a.log")
        self.start()
        ledger = self.ledgers[self.path("a.log")]
        self.assertEqual((ledger.given_up, ledger.missed_bytes), (3, 0))
        why = "3 lines were lost after they were read: the file was taken away"
        self.assertEqual(len(self.said("a.log", why)), 1)
        ((level, words, path),) = self.told
        self.assertEqual((level, path), ("warn", self.path("a.log")))
        self.assertIn(why, words)

    def test_shorter_than_what_was_planned(self) -> None:
        self.store()
        self.die()
        os.truncate(self.path("a.log"), len(LONG) + 1)
        self.start()
        ledger = self.ledgers[self.path("a.log")]
        self.assertEqual(ledger.given_up, 3)
        self.assertEqual(len(self.said("a.log", "3 lines were lost after they were read")), 1)

    def test_what_no_checkpoint_knows_is_counted(self) -> None:
        self.remove("a.log")
        self.wait(2)
        self.die()
        self.stored = None
        self.start()
        self.assertEqual(self.kept(), 0)
        self.assertEqual(self.ledgers[EARLIER].missed_bytes, len(LONG) + 5)
        self.assertEqual(len(self.said("no checkpoint")), 1)
        self.assertEqual(len(self.told), 1)
        self.restart()
        self.assertEqual(self.ledgers[EARLIER].missed_bytes, len(LONG) + 5)

    def test_a_rescued_file_takes_one_descriptor(self) -> None:
        self.remove("a.log")
        self.wait(70)
        (stream,) = self.tail.streams.values()
        place = os.readlink(f"/proc/self/fd/{stream.source.fd}")
        self.assertIn(self.spool_folder, place)
        self.assertEqual(open_files().count(place), 1)


class TooManyOpenTests(TailCase):
    """Rotated files cannot be looked at: that is not to say that there are none."""

    archive = True

    def setUp(self) -> None:
        super().setUp()
        self.full = self.full_again = False

        def open_log(path: str) -> tuple[int, os.stat_result]:
            if self.full and not path.endswith(".log"):
                raise OSError(errno.EMFILE, "Too many open files")
            return real(path)

        def open_again(path: str) -> tuple[int, os.stat_result]:
            if self.full_again:
                raise OSError(errno.EMFILE, "Too many open files")
            return open_log(path)

        real = folders.open_log
        self.patch(folders, "open_log", open_log)
        self.patch(restoring, "open_log", open_log)
        self.patch(rotation, "open_log", open_again)
        self.write("a.log", "old\n")

    def test_a_copy(self) -> None:
        self.full = True
        self.check_a_copy()

    def test_a_copy_that_was_looked_at(self) -> None:
        self.full_again = True
        self.check_a_copy()

    def check_a_copy(self) -> None:
        self.start()
        self.write("a.log", f"{LONG}\n")
        self.copy_and_truncate("a.log", "a.log.1")
        self.write("a.log", "new\n")
        self.wait(30)
        self.assertEqual(len(self.said("a.log", "Too many open files")), 1)
        self.full = self.full_again = False
        self.wait(20)
        self.assertEqual(self.uploader.all(), [LONG, "new"])
        self.assertEqual((self.read(), self.missed()), ([LONG, "new"], 0))

    def test_rotated_twice(self) -> None:
        self.start()
        self.full = True
        self.rename("a.log", "a.log.2")
        self.write("a.log.1", "one\n")
        self.write("a.log", "two\n")
        self.wait(30)
        self.assertEqual(self.read(), ["two"])
        self.assertEqual(len(self.said("a.log", "Too many open files")), 1)
        self.full = False
        self.wait(20)
        self.assertEqual(self.read(), ["two", "one"])

    def test_after_a_restart(self) -> None:
        self.write("a.log", f"{LONG}\n")
        self.start()
        self.store()
        self.die()
        self.rename("a.log", "a.log.1")
        self.write("a.log.1", "one\n")
        self.write("a.log", "two\n")
        self.full = True
        self.start()
        self.wait(20)
        self.assertEqual(self.missed(), 0)
        self.full = False
        self.wait(20)
        self.assertEqual(sorted(self.read()), ["one", "two"])

    def test_at_first_sight(self) -> None:
        self.write("a.log.1", "old\n")
        self.full = True
        self.start()
        self.assertIn("Too many open files", self.tail.ignored[self.path("a.log")])
        self.write("a.log", "one\n")
        self.wait(20)
        self.full = False
        self.wait(20)
        self.assertEqual(self.read(), ["one"])


class LateWriterTests(ArchiveCase):
    """S3 is away for longer than a rotated file is expected to grow."""

    def setUp(self) -> None:
        super().setUp()
        self.uploader.paused = True

    def rotate(self, text: str) -> None:
        self.write("a.log", text)
        self.wait()
        self.rename("a.log", "a.log.1")
        self.write("a.log", "")
        self.wait(70)
        (self.stream,) = (one for one in self.tail.streams.values() if one.rotated_at is not None)
        self.assertTrue(self.stream.complete)

    def over(self) -> None:
        self.uploader.go_on()
        self.wait(70)
        self.uploader.go_on()
        self.wait(2)
        self.assertEqual(len(self.tail.streams), 1)

    def test_it_is_read_on(self) -> None:
        self.rotate("one\n")
        self.write("a.log.1", "two\nthr")
        self.wait(1)
        self.assertFalse(self.stream.complete)
        self.write("a.log.1", "ee\n")
        self.over()
        self.assertEqual(self.read(), ["one", "two", "three"])
        self.assertEqual(self.uploaded(), ["one", "two", "three"])
        self.assertEqual(self.missed(), 0)

    def test_twice(self) -> None:
        self.rotate("one\n")
        self.write("a.log.1", "two\n")
        self.wait(70)
        self.assertTrue(self.stream.complete)
        self.write("a.log.1", "three")
        self.wait(70)
        self.assertTrue(self.stream.complete)
        self.over()
        self.assertEqual(self.uploaded(), ["one", "two", "three"])

    def test_after_what_was_taken_for_a_last_line_it_is_missed(self) -> None:
        self.rotate("one\ntw")
        self.write("a.log.1", "o\nthree\n")
        self.over()
        self.assertEqual(self.uploaded(), ["one", "tw"])
        self.assertEqual(self.missed(), len("o\nthree\n"))

    def test_also_where_it_is_deleted_then(self) -> None:
        self.rotate("one\ntw")
        self.write("a.log.1", "o\n")
        self.remove("a.log.1")
        self.wait(10)
        self.over()
        self.assertEqual(self.uploaded(), ["one", "tw"])
        self.assertEqual(self.missed(), 2)


class ArchivingTests(ArchiveCase):
    def test_planned_batches_are_made_again_with_their_keys(self) -> None:
        self.uploader.paused = True
        self.write("a.log", "1\n" * 100)
        self.wait()
        (stream,) = self.tail.streams.values()
        keys = [batch.key for batch in stream.batches]
        self.assertGreater(len(keys), 2)
        self.restart()
        self.uploader.go_on()
        self.assertEqual(list(self.uploader.objects), keys)
        self.assertEqual(len(self.uploaded()), 100)

    def test_an_archive_that_comes_later(self) -> None:
        self.archive = False
        self.store()
        self.die()
        self.stored = None
        self.start()
        self.write("a.log", "1\n")
        self.wait()
        self.tail.add_archive(self.uploader)
        self.write("a.log", "2\n")
        self.write("b.log", "3\n")
        self.wait(10)
        self.assertEqual(sorted(self.uploaded()), ["2", "3"])

    def test_an_archive_that_is_new_after_a_restart(self) -> None:
        self.archive = False
        self.die()
        self.start()
        self.write("a.log", "1\n")
        self.wait()
        self.store()
        self.die()
        self.write("a.log", "2\n")
        self.archive = True
        self.start()
        self.assertEqual(self.uploaded(), ["2"])

    def test_an_archive_that_comes_back_goes_on_where_it_was(self) -> None:
        self.uploader.paused = True
        self.write("a.log", "1\n")
        self.wait()
        self.store()
        self.die()
        self.archive = False
        self.start()
        self.write("a.log", "2\n")
        self.wait()
        self.restart()
        self.uploader.paused = False
        self.tail.add_archive(self.uploader)
        self.assertEqual(self.uploaded(), ["1", "2"])
        self.assertEqual(self.read(), ["1", "2"])

    def test_an_archive_that_does_not_come_back_is_missed(self) -> None:
        self.uploader.paused = True
        self.write("a.log", "1\n")
        self.wait()
        self.store()
        self.die()
        self.archive = False
        self.start()
        self.write("a.log", "2\n")
        self.rename("a.log", "a.log.1")
        self.wait(100)
        ledger = self.ledgers[self.path("a.log")]
        self.assertEqual((ledger.given_up, ledger.missed_bytes), (1, 2))


class CheckpointTests(TailCase):
    def test_the_patterns_that_were_looked_for(self) -> None:
        self.start("*.log", "b/*.txt")
        self.assertEqual(self.tail.patterns, (self.path("*.log"), self.path("b/*.txt")))

    def test_nothing_followed(self) -> None:
        self.start()
        self.store()
        self.assertEqual(self.stored, Checkpoint(patterns=(self.path("*.log"),)))

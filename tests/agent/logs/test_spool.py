from __future__ import annotations

import errno
import os
import stat
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.spool import BLOCK, Spool, SpooledStream

LIMIT = 64 << 10


class SpoolCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = self.mktemp()
        os.mkdir(self.state)
        self.directory = os.path.join(self.state, "spool")
        self.spool = Spool(self.directory, LIMIT)

    def tearDown(self) -> None:
        for stream in tuple(self.spool._open.values()):
            stream.close()

    def restart(self, limit: int = LIMIT) -> None:
        self.tearDown()
        self.spool = Spool(self.directory, limit)

    def files(self) -> set[str]:
        return {
            os.path.relpath(os.path.join(folder, name), self.directory)
            for folder, _, names in os.walk(self.directory)
            for name in names
        }

    def modes(self) -> set[str]:
        found = set()
        for folder, _, names in os.walk(self.directory):
            found.add(f"d{stat.S_IMODE(os.stat(folder).st_mode):o}")
            for name in names:
                found.add(f"f{stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode):o}")
        return found

    def content(self, stream: SpooledStream) -> bytes:
        return os.pread(stream.fd, LIMIT * 2, 0)


class SpoolTests(SpoolCase):
    def test_nothing_is_made_before_the_first_use(self) -> None:
        self.assertEqual(self.spool.objects(10), {})
        self.assertIsNone(self.spool.find("aa"))
        self.spool.keep("aa", 0)
        self.spool.sweep([])
        self.assertEqual(self.spool.used, 0)
        self.assertFalse(os.path.exists(self.directory))

    def test_only_its_owner_may_look(self) -> None:
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        self.spool.keep("aa", 0).append(b"x")
        self.spool.put_object("o", b"x")
        self.spool.put_aside("a", b"x")
        self.assertEqual(self.modes(), {"d700", "f600"})

    def test_the_state_directory_is_not_made(self) -> None:
        spool = Spool(os.path.join(self.mktemp(), "spool"), LIMIT)
        self.assertFalse(spool.put_object("o", b"x"))
        self.assertIn("No such file", spool.last_error or "")
        self.assertEqual(spool.used, 0)

    def test_limit_is_over_everything(self) -> None:
        self.assertEqual(self.spool.keep("aa", 0).append(bytes(LIMIT - 2 * BLOCK)), 56 << 10)
        self.assertTrue(self.spool.put_object("o", b"x"))
        self.assertTrue(self.spool.put_aside("a", b"x"))
        self.assertEqual(self.spool.used, LIMIT)
        self.assertFalse(self.spool.put_object("p", b"x"))
        self.assertFalse(self.spool.put_aside("b", b"x"))
        self.assertEqual(self.spool.keep("bb", 0).append(b"x"), 0)
        self.assertIn("65536", self.spool.last_error or "")
        self.assertEqual(self.spool.used, LIMIT)
        self.assertEqual(
            self.files(), {"streams/aa-0.log", "objects/o", "rejected/a"}, "nothing half made"
        )

    def test_used_is_right_after_a_restart(self) -> None:
        self.spool.keep("aa", 0).append(bytes(1000))
        self.spool.put_object("o", bytes(BLOCK + 1))
        self.spool.put_aside("a", b"")
        self.assertEqual(self.spool.used, 1000 + 3 * BLOCK)
        self.restart()
        self.assertEqual(self.spool.used, 1000 + 3 * BLOCK)
        self.assertEqual(self.spool.aside, 1)
        self.restart(limit=100)
        self.assertFalse(self.spool.put_object("p", b"x"))
        self.assertEqual(self.spool.used, 1000 + 3 * BLOCK)

    def test_what_was_not_finished_is_removed(self) -> None:
        self.spool.put_object("o", b"x")
        with open(os.path.join(self.directory, ".new-0123"), "wb") as file:
            file.write(bytes(LIMIT))
        self.restart()
        self.assertEqual(self.spool.used, BLOCK)
        self.assertEqual(self.files(), {"objects/o"})


class StreamTests(SpoolCase):
    def test_append_and_find_again(self) -> None:
        stream = self.spool.keep("aabb", 4711)
        self.assertEqual(stream.fd, -1)
        self.assertEqual(stream.append(b"one\n"), 4)
        self.assertEqual(stream.append(b""), 0)
        self.assertEqual(stream.append(b"two\n"), 4)
        self.assertIs(self.spool.find("aabb"), stream)
        self.assertIs(self.spool.keep("aabb", 4711), stream)
        self.restart()
        found = self.spool.find("aabb")
        assert found is not None
        self.assertEqual((found.start, found.size, self.spool.used), (4711, 8, 8))
        self.assertEqual(found.append(b"three\n"), 6)
        self.assertEqual(self.content(found), b"one\ntwo\nthree\n")
        self.assertIsNone(self.spool.find("aab"))

    def test_what_finds_no_room_is_not_taken(self) -> None:
        stream = self.spool.keep("aa", 0)
        self.assertEqual(stream.append(bytes(LIMIT - 10)), LIMIT - 10)
        self.assertEqual(stream.append(b"0123456789abcdef"), 10)
        self.assertIn("full", self.spool.last_error or "")
        self.assertEqual(self.content(stream)[-10:], b"0123456789")
        self.assertEqual(stream.size, LIMIT)

    def test_a_full_disk_is_a_full_spool(self) -> None:
        stream = self.spool.keep("aa", 0)
        stream.append(b"before")
        write = os.write

        def short(fd: int, data: memoryview) -> int:
            if os.fstat(fd).st_size >= 10:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(fd, data[: 10 - os.fstat(fd).st_size])

        with mock.patch("os.write", short):
            self.assertEqual(stream.append(b"0123456789"), 4)
        self.assertIn("No space left", self.spool.last_error or "")
        self.assertEqual(self.content(stream), b"before0123")
        self.assertEqual((stream.size, self.spool.used), (10, 10))

    def test_a_place_that_cannot_be_written_is_a_full_spool(self) -> None:
        with open(self.directory, "w"):
            pass
        spool = Spool(self.directory, LIMIT)
        stream = spool.keep("aa", 0)
        self.assertEqual(stream.append(b"x"), 0)
        self.assertIn("Not a directory", spool.last_error or "")
        self.assertFalse(spool.put_object("o", b"x"))
        self.assertEqual((stream.fd, spool.used), (-1, 0))

    def test_remove_gives_the_room_back(self) -> None:
        stream = self.spool.keep("aa", 0)
        stream.append(b"12345")
        fd = stream.fd
        stream.remove()
        stream.remove()
        self.assertEqual((self.spool.used, self.files()), (0, set()))
        with self.assertRaises(OSError):
            os.fstat(fd)
        self.assertIsNone(self.spool.find("aa"))
        self.assertEqual(self.spool.keep("aa", 5).append(b"x"), 1)

    def test_close_keeps_it(self) -> None:
        stream = self.spool.keep("aa", 0)
        stream.append(b"12345")
        stream.close()
        stream.close()
        found = self.spool.find("aa")
        assert found is not None
        self.assertEqual((found.size, self.spool.used), (5, 5))

    def test_sweep_removes_what_nobody_knows(self) -> None:
        for name in ("aa", "bb"):
            self.spool.keep(name, 7).append(b"123")
        self.restart()
        self.spool.sweep({"bb"})
        self.assertEqual(self.files(), {"streams/bb-7.log"})
        self.assertEqual(self.spool.used, 3)

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        self.spool.keep("bb", 0).append(b"x")
        os.symlink("/etc/passwd", os.path.join(self.directory, "streams", "aa-0.log"))
        self.assertIsNone(self.spool.find("aa"))
        self.assertEqual(self.spool.keep("aa", 0).append(b"x"), 0)


class ObjectTests(SpoolCase):
    def test_put_read_remove(self) -> None:
        self.assertTrue(self.spool.put_object("m%2Fo", b"body"))
        self.restart()
        self.assertEqual(self.spool.objects(10), {"m%2Fo": 4})
        self.assertEqual(self.spool.read_object("m%2Fo"), b"body")
        self.spool.remove_object("m%2Fo")
        self.spool.remove_object("m%2Fo")
        self.assertEqual((self.spool.objects(10), self.spool.used), ({}, 0))
        with self.assertRaises(FileNotFoundError):
            self.spool.read_object("m%2Fo")

    def test_objects_by_and_by(self) -> None:
        for number in range(5):
            self.spool.put_object(f"o{number}", b"")
        first = self.spool.objects(2)
        self.assertEqual(len(first), 2)
        rest = self.spool.objects(10, first)
        self.assertEqual({*first, *rest}, {f"o{number}" for number in range(5)})
        self.assertEqual(len(rest), 3)

    def test_the_same_name_is_replaced(self) -> None:
        self.spool.put_object("o", bytes(3 * BLOCK))
        self.spool.put_object("o", b"new")
        self.assertEqual(self.spool.read_object("o"), b"new")
        self.assertEqual(self.spool.used, BLOCK)
        self.spool.put_aside("o", b"a")
        self.spool.put_aside("o", b"b")
        self.assertEqual((self.spool.used, self.spool.aside), (2 * BLOCK, 1))

    def test_a_write_that_fails_leaves_the_old_one_and_no_room_is_lost(self) -> None:
        self.spool.put_object("o", b"old")
        for function in ("os.fdatasync", "os.replace"):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with mock.patch(function, side_effect=error):
                self.assertFalse(self.spool.put_object("o", b"new"))
            self.assertIn("No space left", self.spool.last_error or "")
            self.assertEqual(self.spool.read_object("o"), b"old")
            self.assertEqual((self.spool.used, self.files()), (BLOCK, {"objects/o"}))

    def test_it_is_synced_before_it_gets_its_name_and_the_directory_after(self) -> None:
        calls: list[str] = []

        def note(name: str) -> object:
            function = getattr(os, name)

            def noted(*args: object) -> object:
                calls.append(name)
                return function(*args)

            return noted

        with mock.patch.multiple(
            "os", **{name: note(name) for name in ("fdatasync", "replace", "fsync")}
        ):
            self.spool.put_object("o", b"x")
        self.assertEqual(calls, ["fdatasync", "replace", "fsync"])

    def test_move_aside(self) -> None:
        self.spool.put_object("o", b"x")
        self.assertTrue(self.spool.move_aside("o"))
        self.assertEqual(self.files(), {"rejected/o"})
        self.assertEqual((self.spool.used, self.spool.aside), (BLOCK, 1))
        self.assertFalse(self.spool.move_aside("gone"))
        self.assertIn("No such file", self.spool.last_error or "")

    def test_move_aside_where_no_directory_can_be_made(self) -> None:
        self.spool.put_object("o", b"x")
        with mock.patch("os.mkdir", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            self.assertFalse(self.spool.move_aside("o"))
        self.assertIn("No space left on device", str(self.spool.last_error))
        self.assertEqual(list(self.spool.objects(10)), ["o"])

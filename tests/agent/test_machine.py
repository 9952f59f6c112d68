"""The machine id."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.machine import read_machine_id


class MachineIdTests(SynchronousTestCase):
    def read(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return read_machine_id(str(path))

    def test_is_trimmed(self) -> None:
        self.assertEqual(self.read(b" 0123456789abcdef\n"), "0123456789abcdef")

    def test_a_file_without_one_is_an_os_error(self) -> None:
        for content in (b"", b"\n", b"uninitialized\n"):
            with self.assertRaisesRegex(OSError, "holds no machine id"):
                self.read(content)

    def test_a_missing_file_is_an_os_error(self) -> None:
        with self.assertRaises(FileNotFoundError):
            read_machine_id(self.mktemp())

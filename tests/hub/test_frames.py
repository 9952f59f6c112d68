"""The short way for text frames by itself; that it equals Autobahn's: test_websocket_paths.py."""

from __future__ import annotations

import builtins
from unittest import skipIf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import frames
from jetcamer.hub.frames import LONGEST, is_awaited, text_frames, unmask, xor_mask
from tests.hub.raw_websocket import BINARY, CLOSE, PING, PONG, TEXT, frame

MASK = b"\x01\x80\xfe\x00"

#: Frames that are for the full parser, whether they are right or wrong.
NOT_OURS = {
    "fragment": frame(TEXT, b"abc", fin=False),
    "continuation": frame(0, b"abc"),
    "binary": frame(BINARY, b"abc"),
    "close": frame(CLOSE, b"\x03\xe8"),
    "ping": frame(PING, b"abc"),
    "pong": frame(PONG, b"abc"),
    "reserved opcode": frame(3, b"abc"),
    "reserved bits": frame(TEXT, b"abc", rsv=4),
    "not masked": frame(TEXT, b"abc", mask=None),
    "not masked, 16 bits": frame(TEXT, b"a" * 200, mask=None),
    "not UTF-8": frame(TEXT, b"\xff"),
    "half a character": frame(TEXT, "√".encode()[:2]),
    "half a surrogate pair": frame(TEXT, b"\xed\xa0\x80"),
    "16 bits for what 7 can say": frame(TEXT, b"a" * 125, form=16),
    "64 bits for what 16 can say": frame(TEXT, b"a" * 125, form=64),
    "64 bits": frame(TEXT, b"a" * (LONGEST + 1)),
}


class TextFrameTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        """Each form of the length at both of its ends."""
        for size in (0, 1, 3, 4, 125, 126, 127, 255, 256, LONGEST):
            payload = bytes(65 + at % 26 for at in range(size))
            data = b"before" + frame(TEXT, payload, mask=MASK) + b"after"
            self.assertEqual(text_frames(data[6:], LONGEST), ([payload], len(data) - 5 - 6))

    def test_characters(self) -> None:
        payload = "ünï √ 🛰 \u2028 \x00".encode()
        data = frame(TEXT, payload, mask=MASK)
        self.assertEqual(text_frames(data, LONGEST), ([payload], len(data)))

    def test_not_ours(self) -> None:
        for name, data in NOT_OURS.items():
            self.assertEqual(text_frames(data + b"\x81\x80....", LONGEST), ([], 0), name)
            self.assertEqual(text_frames(data, LONGEST), ([], 0), name)

    def test_limit(self) -> None:
        data = frame(TEXT, b"a" * 100)
        self.assertEqual(text_frames(data, 100), ([b"a" * 100], len(data)))
        self.assertEqual(text_frames(data, 99), ([], 0))

    def test_incomplete(self) -> None:
        """Cut anywhere, it is not taken, and awaited."""
        for size in (0, 5, 125, 126, 400):
            data = frame(TEXT, b"a" * size, mask=MASK)
            for cut in range(len(data)):
                self.assertEqual(text_frames(data[:cut], LONGEST), ([], 0))
                self.assertEqual(is_awaited(data[:cut], LONGEST), cut > 0, (size, cut))

    def test_not_awaited(self) -> None:
        """What is no text frame is the full parser's from its first byte that shows it."""
        for name, data in NOT_OURS.items():
            self.assertFalse(is_awaited(data, LONGEST), name)
        for data in (
            frame(PING, b"abc")[:1],
            frame(TEXT, b"abc", mask=None)[:2],
            frame(TEXT, b"a" * 10, form=16)[:4],
            frame(TEXT, b"a" * 300)[:4],
            frame(TEXT, b"a" * 4096)[:100],
            frame(TEXT, b"a" * (LONGEST + 1))[:2],
        ):
            self.assertFalse(is_awaited(data, 200), data[:10])

    @given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
    def test_masks(self, data: bytes, mask: bytes) -> None:
        """Both ways to unmask do what RFC 6455 5.3 says."""
        wanted = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        self.assertEqual(xor_mask(data, mask), wanted)
        self.assertEqual(unmask(data, mask), wanted)

    @skipIf(frames.unmask is xor_mask, "websockets has no speedups here")
    def test_without_the_library(self) -> None:
        real = builtins.__import__

        def refuse(name: str, *args: object, **options: object) -> object:
            if name.startswith("websockets"):
                raise ImportError(name)
            return real(name, *args, **options)

        self.assertIsNot(frames._fastest_mask(), xor_mask)
        self.patch(builtins, "__import__", refuse)
        self.assertIs(frames._fastest_mask(), xor_mask)

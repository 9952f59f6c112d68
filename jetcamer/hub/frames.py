"""Received bytes → the payloads of whole text messages: the one shape of frame that agents send.

In: bytes that begin where a frame begins, outside any message (RFC 6455, 5.2). Out: the
payloads, unmasked, known to be UTF-8. A frame that is complete, final, masked, unfragmented text,
of up to 64 KiB and as short in form as its length allows is taken; anything else, whether it is
another kind of frame or a fault, ends the row, and its bytes are for the full parser. It never
judges: what is not taken here is not therefore wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct

#: Payload bytes of the longest frame that is taken: what the 16-bit form of the length can say.
LONGEST = 0xFFFF

#: A frame that is not whole yet is waited for up to this length, its header included, and the
#: full parser spared. Beyond it, joining each read to what came before would cost more.
_LONGEST_AWAITED = 4096

_FINAL_TEXT = 0x81
_MASKED = 0x80
_LENGTH_16, _LENGTH_64 = _MASKED | 126, _MASKED | 127
_TEXT = _FINAL_TEXT << 8 | _MASKED  # the first two bytes, where the second is the length
_TEXT_16 = _TEXT | 126  # where two more are
_HEAD, _HEAD_16 = 2 + 4, 4 + 4  # bytes before the payload, the mask being the last four
_two_shorts = Struct(">HH").unpack_from


def xor_mask(data: bytes, mask: bytes) -> bytes:
    """`data` with the 4 bytes of `mask` laid over it again and again. Its own inverse."""
    size = len(data)
    pattern = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")
    return mixed.to_bytes(size, "little")


def _fastest_mask() -> Callable[[bytes, bytes], bytes]:
    """The C routine where `websockets` is installed, with its own speedups built."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return xor_mask
    return apply_mask


unmask = _fastest_mask()


def text_frames(data: bytes, longest: int) -> tuple[list[bytes], int]:
    """The payloads of the text frames that `data` begins with, and where the rest begins.

    :param longest: payload bytes, at most `LONGEST`.
    """
    payloads: list[bytes] = []
    at, size = 0, len(data)
    while size - at >= _HEAD:
        head, length = _two_shorts(data, at)
        if head == _TEXT_16:
            begin = at + _HEAD_16
            if length < 126:
                break  # would have fitted into the short form
        elif _TEXT <= head < _TEXT_16:
            begin = at + _HEAD
            length = head - _TEXT
        else:
            break  # not final text, not masked, or longer than ours are
        end = begin + length
        if end > size or length > longest:
            break
        payload = unmask(data[begin:end], data[begin - 4 : begin])
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                break
        payloads.append(payload)
        at = end
    return payloads, at


def wire_length(payloads: Sequence[bytes]) -> int:
    """Bytes of the frames that `text_frames` took these from."""
    return sum(len(each) + (_HEAD if len(each) < 126 else _HEAD_16) for each in payloads)


def is_awaited(data: bytes, longest: int) -> bool:
    """Whether `data`, of which `text_frames` took nothing, may be the beginning of a short frame
    that it will take once the rest is there."""
    size = len(data)
    if not size or data[0] != _FINAL_TEXT:
        return False
    if size == 1:
        return True
    length = data[1]
    if length < _MASKED or length == _LENGTH_64:
        return False
    if length < _LENGTH_16:
        end = _HEAD + length - _MASKED
    elif size < 4:
        return True
    else:
        length = data[2] << 8 | data[3]
        if length < 126 or length > longest:
            return False
        end = _HEAD_16 + length
    return size < end <= _LONGEST_AWAITED

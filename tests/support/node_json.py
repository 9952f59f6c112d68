"""One Node child for the whole run: what ``JSON`` and ``crypto`` of a real server say to a text."""

from __future__ import annotations

import atexit
import subprocess
from base64 import b64decode, b64encode
from functools import cache
from pathlib import Path

from tests.support.tools import require_program


class NodeRefused(Exception):
    """Node threw: the text is no JSON to it, or the message nothing that it can verify."""


class NodeJSON:
    def __init__(self, node: str) -> None:
        self._child = subprocess.Popen(
            [node, str(Path(__file__).with_suffix(".js"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def rewrite(self, text: bytes) -> bytes:
        """``JSON.stringify(JSON.parse(text))``; raises NodeRefused."""
        return self._ask("json", text)

    def sign(self, secret: str, unsigned: bytes) -> bytes:
        """The message a Node server sends for an object of type, agentId, ts, nonce, payload."""
        return self._ask("sign", secret.encode(), unsigned)

    def verifies(self, secret: str, message: bytes) -> bool:
        return self._ask("verify", secret.encode(), message) == b"true"

    def close(self) -> None:
        self._child.communicate()

    def _ask(self, operation: str, *texts: bytes) -> bytes:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        words = [operation, *(b64encode(text).decode() for text in texts)]
        self._child.stdin.write(" ".join(words).encode() + b"\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if answer == b"!\n":
            raise NodeRefused
        assert answer.startswith(b"= "), "the Node child is gone"
        return b64decode(answer[2:])


@cache
def node_json() -> NodeJSON:
    """The child, started when first asked for; skips the test where there is no Node."""
    child = NodeJSON(require_program("node"))
    atexit.register(child.close)
    return child

"""Which agents the hub knows, and by which key.

In: an agent id. Out: the key its messages are verified with, and the nonces it has used. The nonces
live here, beside the key and not in a session, so that a recorded `auth` cannot open a second
session. Never hands out a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey


class AgentKey:
    """What it takes to verify one agent's messages, over all its connections."""

    __slots__ = ("replay", "signing")

    def __init__(self, signing: SigningKey) -> None:
        self.signing = signing
        self.replay = ReplayGuard()


class KeyRing(Protocol):
    """Where sessions look agents up. Answers at once: it is asked once a connection."""

    def find(self, agent_id: str) -> AgentKey | None:
        """The agent's key; None for an agent nobody knows."""


class StaticKeyRing:
    """A `KeyRing` over secrets that are known from the start.

    :param secrets: agent id to shared secret.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._keys = {
            agent_id: AgentKey(SigningKey(secret)) for agent_id, secret in secrets.items()
        }

    def find(self, agent_id: str) -> AgentKey | None:
        return self._keys.get(agent_id)

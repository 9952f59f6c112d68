"""Addresses whose agents are not let in for a while: which, and an end to it."""

from __future__ import annotations

from jetcamer.hub.api import answers
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.table import Call, Operation
from jetcamer.net.http import HTTPError


class BanOperations:
    def __init__(self, parts: HubParts) -> None:
        self._parts = parts

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/api/bans",
                role="viewer",
                summary="The addresses that are banned",
                handler=self.bans,
                answers={200: answers.Bans},
                tag="bans",
            ),
            Operation(
                method="DELETE",
                path="/api/bans/{address}",
                role="operator",
                summary="Let an address in again",
                handler=self.lift,
                answers={200: answers.LiftedBan},
                tag="bans",
            ),
        ]

    def bans(self, call: Call) -> answers.Bans:
        found = sorted(self._parts.offenders.bans(), key=lambda ban: (-ban[1], ban[0]))
        return answers.Bans(
            bans=tuple(
                answers.Ban(address=address, seconds_left=round(seconds, 1), offences=offences)
                for address, seconds, offences in found
            )
        )

    def lift(self, call: Call, address: str) -> answers.LiftedBan:
        if not self._parts.offenders.lift(address):
            raise HTTPError(404, "this address is not banned")
        self._parts.store.audit(call.who, "ban.lift", address, {})
        return answers.LiftedBan(address=address, lifted=True)

"""Who may speak to the hub, and who may ask it: agents' secrets, join tokens, API tokens.

A secret or a token is in the one answer that makes it, and in no other.
"""

from __future__ import annotations

from jetcamer.hub.api import answers, convert, questions
from jetcamer.hub.api.agents import known_agent
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.table import Call, Operation
from jetcamer.hub.api.tokens import LastAdminError
from jetcamer.hub.enrolment import EnrolmentError
from jetcamer.net.http import HTTPError
from jetcamer.net.http_guard import bearer_token, host_name, unauthorized


class IdentityOperations:
    def __init__(self, parts: HubParts) -> None:
        self._parts = parts
        self._enrolment = parts.enrolment
        self._tokens = parts.tokens

    def operations(self) -> list[Operation]:
        return [*self._of_agents(), *self._of_tokens(), *self._of_joining()]

    def _of_agents(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/api/agents",
                role="admin",
                summary="Add an agent",
                handler=self.add,
                body=questions.NewAgentBody,
                answers={201: answers.NewAgent, 409: answers.Error},
                tag="identity",
            ),
            Operation(
                method="POST",
                path="/api/agents/{id}/rotate",
                role="admin",
                summary="Give an agent a new secret",
                handler=self.rotate,
                body=questions.RotateBody,
                answers={200: answers.NewSecret, 409: answers.Error},
                tag="identity",
            ),
            Operation(
                method="POST",
                path="/api/agents/{id}/revoke",
                role="admin",
                summary="Accept nothing more of an agent",
                handler=self.revoke,
                answers={200: answers.Revoked},
                tag="identity",
            ),
            Operation(
                method="POST",
                path="/api/agents/{id}/restore",
                role="admin",
                summary="Take a revocation back, with a new secret",
                handler=self.restore,
                body=questions.RestoreBody,
                answers={200: answers.NewAgent, 409: answers.Error},
                tag="identity",
            ),
        ]

    def _of_tokens(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/api/tokens",
                role="admin",
                summary="API tokens",
                handler=self.tokens,
                answers={200: answers.Tokens},
                tag="identity",
            ),
            Operation(
                method="POST",
                path="/api/tokens",
                role="admin",
                summary="Make an API token",
                handler=self.new_token,
                body=questions.NewTokenBody,
                answers={201: answers.NewToken, 409: answers.Error},
                tag="identity",
            ),
            Operation(
                method="DELETE",
                path="/api/tokens/{id}",
                role="admin",
                summary="Delete an API token",
                handler=self.delete_token,
                answers={200: answers.Deleted, 409: answers.Error},
                tag="identity",
            ),
        ]

    def _of_joining(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/api/join-tokens",
                role="admin",
                summary="Join tokens",
                handler=self.join_tokens,
                answers={200: answers.JoinTokens},
                tag="identity",
            ),
            Operation(
                method="POST",
                path="/api/join-tokens",
                role="admin",
                summary="Make a token that machines may join with",
                handler=self.new_join_token,
                body=questions.NewJoinTokenBody,
                answers={201: answers.NewJoinToken},
                tag="identity",
            ),
            Operation(
                method="DELETE",
                path="/api/join-tokens/{id}",
                role="admin",
                summary="Delete a join token",
                handler=self.delete_join_token,
                answers={200: answers.Deleted},
                tag="identity",
            ),
            Operation(
                method="POST",
                path="/api/join",
                role=None,
                join=True,
                summary="Join with a join token as the bearer token",
                handler=self.join,
                body=questions.JoinBody,
                answers={201: answers.JoinedAgent, 409: answers.Error},
                tag="identity",
            ),
        ]

    async def add(self, call: Call) -> answers.NewAgent:
        body: questions.NewAgentBody = call.body
        url = self._url(call)
        secret = await self._enrolment.add(body.agent_id, who=call.who, secret=body.secret)
        return _new_agent(url, body.agent_id, secret)

    async def rotate(self, call: Call, agent_id: str) -> answers.NewSecret:
        body: questions.RotateBody = call.body
        if known_agent(self._parts, agent_id).revoked_ms is not None:
            raise HTTPError(409, "the agent was revoked: restore it, which gives it a new secret")
        url = self._url(call)
        secret, until = await self._enrolment.rotate(
            agent_id, who=call.who, grace_seconds=body.grace_seconds, secret=body.secret
        )
        return answers.NewSecret(
            agent_id=agent_id,
            secret=secret,
            old_valid_until=until,
            config=_config(url, agent_id, secret),
        )

    async def revoke(self, call: Call, agent_id: str) -> answers.Revoked:
        known_agent(self._parts, agent_id)
        await self._enrolment.revoke(agent_id, who=call.who)
        return answers.Revoked(agent_id=agent_id, revoked=True)

    async def restore(self, call: Call, agent_id: str) -> answers.NewAgent:
        body: questions.RestoreBody = call.body
        known_agent(self._parts, agent_id)
        url = self._url(call)
        secret = await self._enrolment.restore(agent_id, who=call.who, secret=body.secret)
        return _new_agent(url, agent_id, secret)

    def tokens(self, call: Call) -> answers.Tokens:
        return answers.Tokens(tokens=tuple(map(convert.token, self._tokens.all())))

    async def new_token(self, call: Call) -> answers.NewToken:
        body: questions.NewTokenBody = call.body
        if not body.name.isprintable() or body.name != body.name.strip():
            raise HTTPError(400, "name: expected printable characters without blanks around them")
        record, token = await self._tokens.create(
            body.name, body.role, body.expires_seconds, who=call.who
        )
        return answers.NewToken(
            id=record.token_id,
            name=record.name,
            role=record.role,
            created_at=record.created_ms,
            expires_at=record.expires_ms,
            last_used=None,
            token=token,
        )

    async def delete_token(self, call: Call, token_id: str) -> answers.Deleted:
        try:
            found = await self._tokens.delete(token_id, who=call.who)
        except LastAdminError as error:
            raise HTTPError(409, str(error)) from None
        if not found:
            raise HTTPError(404, "no token of this id is known")
        return answers.Deleted(id=token_id, deleted=True)

    async def join_tokens(self, call: Call) -> answers.JoinTokens:
        found = await self._parts.store.join_tokens()
        return answers.JoinTokens(tokens=tuple(map(convert.join_token, found)))

    async def new_join_token(self, call: Call) -> answers.NewJoinToken:
        body: questions.NewJoinTokenBody = call.body
        token, record = await self._enrolment.create_join_token(
            who=call.who, expires_seconds=body.expires_seconds, uses=body.uses
        )
        return answers.NewJoinToken(
            id=record.token_id,
            token=token,
            expires_at=record.expires_ms,
            uses_left=record.uses_left,
        )

    async def delete_join_token(self, call: Call, token_id: str) -> answers.Deleted:
        if not await self._parts.store.delete_join_token(token_id):
            raise HTTPError(404, "no join token of this id is known")
        self._parts.store.audit(call.who, "join-token.delete", token_id, {})
        return answers.Deleted(id=token_id, deleted=True)

    async def join(self, call: Call) -> answers.JoinedAgent:
        body: questions.JoinBody = call.body
        address = self._tokens.address_of(call.request)
        self._tokens.check_throttle(address)
        token = bearer_token(call.request)
        if token is None:
            raise unauthorized("a join token is required, as the bearer token")
        url = self._url(call)
        try:
            secret = await self._enrolment.join(token.decode(), body.agent_id, address=address)
        except EnrolmentError as error:
            if error.kind == "token":
                self._tokens.throttle.failed(address)
            raise
        return answers.JoinedAgent(
            agent_id=body.agent_id,
            secret=secret,
            ws_api_url=url,
        )

    def _url(self, call: Call) -> str:
        """Where agents connect. Asked for before anything is changed: a secret that was made must
        reach who asked for it."""
        return self._parts.agent_url(host_name(call.request))


def _new_agent(url: str, agent_id: str, secret: str) -> answers.NewAgent:
    return answers.NewAgent(
        agent_id=agent_id,
        secret=secret,
        ws_api_url=url,
        config=_config(url, agent_id, secret),
    )


def _config(url: str, agent_id: str, secret: str) -> answers.NewAgentConfig:
    return answers.NewAgentConfig(ws_api_url=url, ws_secret=secret, instance_id=agent_id)

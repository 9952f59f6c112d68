"""The Node peers themselves: that they agree with each other and with the document's server.

A test against a peer proves nothing if the peer accepts everything.
"""

from __future__ import annotations

from twisted.internet import reactor

from tests.support.case import ProcessCase
from tests.support.customer_server import CustomerServer
from tests.support.line_process import LineNotSeen
from tests.support.node_peer import NodeAgent, NodePeer

AGENT = "agent-ünï-1"
SECRET = "a secret — with <&>"


class NodePeersTests(ProcessCase):
    async def peer(self, **options: object) -> NodePeer:
        peer = NodePeer(reactor, {AGENT: SECRET}, **options)
        self.addCleanup(peer.stop)
        return await peer.start()

    async def agent(self, url: str, secret: str = SECRET, **options: object) -> NodeAgent:
        agent = NodeAgent(reactor, url, AGENT, secret, **options)
        self.addCleanup(agent.stop)
        return await agent.start()

    async def test_conversation(self) -> None:
        """Auth, metrics and heartbeat arrive; a command is answered."""
        peer = await self.peer()
        agent = await self.agent(peer.url, metrics=0.05, heartbeat=0.05)
        auth = await peer.message("auth")
        self.assertEqual(auth["agentId"], AGENT)
        await peer.message("metrics")
        await peer.message("heartbeat")
        peer.do("command", agentId=AGENT, command="ping")
        answer = await peer.message("command_result")
        self.assertEqual(answer["payload"], {"command": "ping", "result": "pong", "error": ""})
        self.assertEqual((await agent.wait_for_event("command"))["args"], {})

    async def test_wrong_key(self) -> None:
        """A signature by another key is refused on both sides; and the agent does not run a
        command whose signature is wrong or no signature at all."""
        peer = await self.peer()
        agent = await self.agent(peer.url, secret="another")
        self.assertEqual((await peer.wait_for_event("refused"))["reason"], "invalid_signature")
        closed = await agent.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1008, "invalid_signature"))
        agent = await self.agent(peer.url)
        await peer.message("auth")
        for signature in ("00" * 32, "zz", ""):
            before = len(agent.events)
            peer.do("command", agentId=AGENT, command="ping", more={"signature": signature})
            await agent.wait_for_event("refused", since=before, reason="invalid_signature")
        self.assertEqual([e for e in agent.events if e["event"] == "command"], [])

    async def test_control(self) -> None:
        """A control line that cannot be obeyed is an event; a close is obeyed."""
        peer = await self.peer()
        peer.do("close", code=1000)
        error = await peer.wait_for_event("control_error")
        self.assertEqual(error["message"], "no connection for anybody")
        agent = await self.agent(peer.url)
        await peer.message("auth")
        peer.do("close", code=1013, reason="try later")
        closed = await agent.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1013, "try later"))

    async def test_deadline_and_death(self) -> None:
        """A wait ends, and shows what the child said instead; it ends when the child does, too."""
        peer = await self.peer()
        with self.assertRaises(LineNotSeen) as caught:
            await peer.wait_for_event("never", timeout=0.01)
        self.assertIn("listening", str(caught.exception))
        waiting = peer.wait_for(lambda event: False)
        peer.signal("KILL")
        with self.assertRaises(LineNotSeen):
            await waiting

    async def test_the_documents_server(self) -> None:
        """The document's own server takes what the Node agent says, and commands it; and it
        refuses what another key signed."""
        server = CustomerServer(reactor, {AGENT: SECRET})
        self.addCleanup(server.stop)
        await server.start()
        await self.agent(server.url, metrics=0.05)
        await server.wait_for(lambda line: f"Agent authenticated: {AGENT}" in line)
        await server.wait_for(lambda line: f"Metrics from {AGENT}" in line)
        server.send_command(AGENT, "ping")
        await server.wait_for(lambda line: "[console] sendCommand: true" in line)
        await server.wait_for(lambda line: f"Command result from {AGENT}" in line)
        self.assertEqual(server.stderr, "")
        other = await self.agent(server.url, secret="another")
        closed = await other.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1008, "invalid_signature"))

"""The reactor with the shorter way: each scene is played on Twisted's own too, to be the same."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as trial_reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python import context, log
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from jetcamer.daemon import epoll
from jetcamer.daemon.epoll import DirectEPollReactor
from tests.support.case import ProcessCase
from tests.support.tools import ROOT
from tests.support.twistd import clean_environment


class Scene:
    """A reactor that is stepped by hand, and what happened to its readers."""

    def __init__(self, kind: type[EPollReactor]) -> None:
        self.reactor = kind()
        self.events: list[object] = []
        self.open: list[socket.socket] = []

    def reader(self, name: str = "a", kind: type[Reader] | None = None) -> Reader:
        ours, theirs = socket.socketpair()
        self.open += [ours, theirs]
        reader = (kind or Reader)(self, name, ours, theirs)
        self.reactor.addReader(reader)
        return reader

    def step(self) -> None:
        self.reactor.doIteration(0)

    def close(self) -> None:
        for selectable in self.reactor.removeAll():
            if not isinstance(selectable, Reader):
                selectable.connectionLost(Failure(CONNECTION_DONE))
        self.reactor._poller.close()
        for each in self.open:
            each.close()


class Reader(FileDescriptor):
    """Does what the scene says when there is something to read."""

    def __init__(self, scene: Scene, name: str, ours: socket.socket, theirs: socket.socket) -> None:
        super().__init__(scene.reactor)
        self.scene, self.name, self.ours, self.theirs = scene, name, ours, theirs
        self.connected = 1
        self.on_read: Callable[[], object] = lambda: None
        self.number: Callable[[], int] = ours.fileno

    def fileno(self) -> int:
        return self.number()

    def logPrefix(self) -> str:
        return f"prefix of {self.name}"

    def note(self, what: object, *more: object) -> None:
        prefix = context.get(ILogContext)["system"]
        self.scene.events.append((self.name, prefix, what, *more))

    def doRead(self) -> Any:
        self.note("read", self.ours.recv(100))
        return self.on_read()

    def doWrite(self) -> Any:
        self.note("write")
        self.stopWriting()

    def connectionLost(self, reason: Failure) -> None:
        self.note("lost", reason.type, str(reason.value))

    def readConnectionLost(self, reason: Failure) -> None:
        self.note("half lost", reason.type)


class NoPrefix(Reader):
    def logPrefix(self) -> str:
        raise ZeroDivisionError


class SameTests(SynchronousTestCase):
    def play(self, act: Callable[[Scene], object]) -> list[object]:
        """What happens, the same on both."""
        found = []
        for kind in (EPollReactor, DirectEPollReactor):
            errors: list[object] = []

            def observe(event: dict[str, Any], errors: list[object] = errors) -> None:
                if event["isError"]:
                    errors.append((event["system"], event["failure"].type))

            scene = Scene(kind)
            log.addObserver(observe)
            try:
                act(scene)
            finally:
                log.removeObserver(observe)
                scene.close()
            self.flushLoggedErrors()
            self.assertEqual(context.get(ILogContext)["system"], "-")
            self.assertEqual(len(context.theContextTracker.currentContext().contexts), 1)
            found.append([*scene.events, *errors])
        self.assertEqual(found[1], found[0])
        return found[1]

    def test_read(self) -> None:
        def act(scene: Scene) -> None:
            a, b = scene.reader("a"), scene.reader("b")
            scene.step()
            a.theirs.send(b"1")
            scene.step()
            a.theirs.send(b"2")
            b.theirs.send(b"3")
            scene.step()

        events = self.play(act)
        self.assertEqual(events[0], ("a", "prefix of a", "read", b"1"))
        self.assertEqual(len(events), 3)

    def test_what_do_read_returns(self) -> None:
        for outcome in (CONNECTION_DONE, CONNECTION_LOST, ValueError("odd")):

            def act(scene: Scene, outcome: object = outcome) -> None:
                a = scene.reader()
                a.on_read = lambda: outcome
                a.theirs.send(b"1")
                scene.step()
                a.theirs.send(b"2")
                scene.step()

            self.assertEqual(len(self.play(act)), 2)

    def test_what_do_read_raises(self) -> None:
        for error in (ZeroDivisionError, KeyboardInterrupt, type(CONNECTION_DONE)):

            def act(scene: Scene, error: type[BaseException] = error) -> None:
                def fail() -> None:
                    raise error

                a, b = scene.reader("a"), scene.reader("b")
                a.on_read = b.on_read = fail
                a.theirs.send(b"1")
                b.theirs.send(b"2")
                scene.step()
                scene.step()

            events = self.play(act)
            self.assertEqual(len(events), 6)
            self.assertIn(("prefix of a", error), events)

    def test_what_the_end_raises(self) -> None:
        def act(scene: Scene) -> None:
            def fail(reason: Failure) -> None:
                raise ZeroDivisionError

            a = scene.reader("a")
            a.connectionLost = fail  # type: ignore[method-assign]
            a.on_read = lambda: CONNECTION_LOST
            a.theirs.send(b"1")
            scene.step()
            a.theirs.send(b"2")
            scene.step()

        self.assertIn(("prefix of a", ZeroDivisionError), self.play(act))

    def test_hung_up(self) -> None:
        def act(scene: Scene) -> None:
            a = scene.reader()
            a.ours.shutdown(socket.SHUT_RD)
            a.theirs.close()
            scene.step()
            b = scene.reader("b", None)
            b.theirs.send(b"last")
            b.theirs.close()
            scene.step()

        self.play(act)

    def test_hung_up_with_nothing_to_read(self) -> None:
        def act(scene: Scene) -> None:
            a = scene.reader()
            read, write = os.pipe()
            scene.reactor.removeReader(a)
            a.number = lambda: read
            scene.reactor.addReader(a)
            os.close(write)
            scene.step()
            os.close(read)

        self.assertIn("half lost", str(self.play(act)))

    def test_unregistered_by_the_one_before(self) -> None:
        def act(scene: Scene) -> None:
            a, b = scene.reader("a"), scene.reader("b")
            a.on_read = b.stopReading
            b.on_read = a.stopReading
            a.theirs.send(b"1")
            b.theirs.send(b"2")
            scene.step()
            scene.step()

        self.assertEqual(len(self.play(act)), 1)

    def test_another_descriptor_under_the_same_number(self) -> None:
        def act(scene: Scene) -> None:
            a = scene.reader("a")

            def change() -> None:
                a.stopReading()
                b = Reader(scene, "b", a.ours, a.theirs)
                scene.reactor.addReader(b)

            a.on_read = change
            a.theirs.send(b"1")
            scene.step()
            a.theirs.send(b"2")
            scene.step()

        self.assertEqual([event[0] for event in self.play(act)], ["a", "b"])  # type: ignore[index]

    def test_no_descriptor_any_more(self) -> None:
        def act(scene: Scene) -> None:
            a = scene.reader()
            a.theirs.send(b"1")
            a.number = lambda: -1
            scene.step()
            scene.step()

        self.assertIn("ConnectionFdescWentAway", str(self.play(act)))

    def test_a_prefix_that_fails(self) -> None:
        def act(scene: Scene) -> None:
            a = scene.reader("a", NoPrefix)
            b = scene.reader("b")
            a.theirs.send(b"1")
            b.theirs.send(b"2")
            scene.step()

        self.assertIn("buggy logPrefix", str(self.play(act)))

    def test_readable_and_writable(self) -> None:
        def act(scene: Scene) -> None:
            a = scene.reader()
            a.theirs.send(b"1")
            a.startWriting()
            scene.step()

        self.assertEqual(len(self.play(act)), 2)

    def test_a_step_within_a_step(self) -> None:
        def act(scene: Scene) -> None:
            a, b = scene.reader("a"), scene.reader("b")

            def nest() -> None:
                b.theirs.send(b"2")
                scene.step()
                a.note("after")

            a.on_read = nest
            a.theirs.send(b"1")
            scene.step()

        self.assertEqual([event[1] for event in self.play(act)][-1], "prefix of a")  # type: ignore[index]

    def test_interrupted_by_a_signal(self) -> None:
        class Interrupted:
            def poll(self, *_: object) -> None:
                raise InterruptedError

            def close(self) -> None:
                pass

        def act(scene: Scene) -> None:
            scene.reactor._poller.close()
            scene.reactor._poller = Interrupted()
            scene.step()
            scene.reactor._selectables, scene.reactor._reads = {}, set()

        scene = Scene(DirectEPollReactor)
        internal = scene.reactor.removeAll()
        act(scene)
        for each in internal:
            each.connectionLost(Failure(CONNECTION_DONE))


class Accepted(Protocol):
    """Notes what befalls an accepted connection, and does what the scene says when it reads."""

    scene: Scene
    data = b""
    on_read: Callable[[], object] = staticmethod(lambda: None)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        prefix = context.get(ILogContext)["system"]
        if prefix not in self.scene.events:
            self.scene.events.append(prefix)
        self.on_read()

    def connectionLost(self, reason: Failure) -> None:
        self.scene.events.append((self.data, reason.type, str(reason.value)))


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Accepted):
    def readConnectionLost(self) -> None:
        self.scene.events.append("half lost")

    def writeConnectionLost(self) -> None:
        pass


class AcceptedTests(SynchronousTestCase):
    """Those that the shorter way knows: TCP connections that a port accepted."""

    play = SameTests.play

    def accept(self, scene: Scene, kind: type[Accepted] = Accepted) -> tuple[Accepted, Any]:
        factory = Factory.forProtocol(kind)
        built: list[Accepted] = []
        build = factory.buildProtocol
        factory.buildProtocol = lambda addr: built.append(build(addr)) or built[-1]
        port = scene.reactor.listenTCP(0, factory, interface="127.0.0.1")
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        scene.open.append(client)
        while not built:
            scene.step()
        built[0].scene = scene
        return built[0], client

    def test_sizes(self) -> None:
        for size in (1, 478, 479, 480, 4096, 479 + 60 * 1024, 200_000):

            def act(scene: Scene, size: int = size) -> None:
                connection, client = self.accept(scene)
                sent = os.urandom(size)
                scene.events.append(sent)
                client.sendall(sent)
                while len(connection.data) < size:
                    scene.step()
                client.close()
                while len(scene.events) < 3:
                    scene.step()
                (scene.events[0],) = {sent, scene.events[-1][0]}
                scene.events[0] = scene.events[-1] = len(sent)

            self.assertEqual(self.play(act), [size, "Accepted,0,127.0.0.1", size])

    def test_they_take_the_shorter_way(self) -> None:
        taken: list[object] = []
        receive = epoll._receive
        self.patch(epoll, "_receive", lambda each: taken.append(each) or receive(each))
        scene = Scene(DirectEPollReactor)
        connection, client = self.accept(scene)
        client.sendall(b"1")
        while not connection.data:
            scene.step()
        self.assertEqual(taken, [connection.transport])
        scene.close()

    def test_aborted(self) -> None:
        """What was on its way is not delivered any more."""

        def act(scene: Scene) -> None:
            connection, client = self.accept(scene)
            transport: Any = connection.transport
            client.sendall(b"1")
            transport.abortConnection()
            transport.resumeProducing()
            scene.step()
            scene.events.append(connection.data)
            while len(scene.events) < 2:
                scene.reactor.runUntilCurrent()
                scene.step()

        self.assertEqual(self.play(act)[0], b"")

    def test_reset(self) -> None:
        def act(scene: Scene) -> None:
            _, client = self.accept(scene)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            while not scene.events:
                scene.step()

        ((_, reason, _),) = self.play(act)
        self.assertIs(reason, ConnectionLost)

    def test_half_closed(self) -> None:
        def act(scene: Scene) -> None:
            _, client = self.accept(scene, HalfCloseable)
            client.shutdown(socket.SHUT_WR)
            while not scene.events:
                scene.step()

        self.assertEqual(self.play(act), ["half lost"])

    def test_what_the_protocol_raises(self) -> None:
        for outcome in (ZeroDivisionError("odd"), OSError(11, "not from the socket"), SystemExit()):

            def act(scene: Scene, outcome: BaseException = outcome) -> None:
                def fail() -> None:
                    raise outcome

                connection, client = self.accept(scene)
                connection.on_read = fail
                client.sendall(b"1")
                while len(scene.events) < 2:
                    scene.step()

            prefix = "Accepted,0,127.0.0.1"
            lost = (b"1", type(outcome), str(outcome))
            self.assertEqual(self.play(act), [prefix, lost, (prefix, type(outcome))])


INSTALL = """
from jetcamer.daemon.epoll import install_unless_there_is_one
print(install_unless_there_is_one(), install_unless_there_is_one())
from twisted.internet import reactor
print(type(reactor).__name__)
"""

TALK = """
from jetcamer.daemon import epoll
epoll.install()
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

class Client(Protocol):
    length = 0
    def connectionMade(self):
        self.transport.write(b"x" * 3_000_000)
    def dataReceived(self, data):
        self.length += len(data)
        if self.length == 3_000_000:
            self.transport.loseConnection()
    def connectionLost(self, reason):
        print(self.length, reason.type.__name__)
        reactor.stop()

port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Client())
reactor.run()
"""

TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


class ProcessTests(ProcessCase):
    async def run_python(self, program: str, *arguments: str) -> str:
        out, err, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", program, *arguments],
            env=clean_environment(PYTHONPATH=str(ROOT)),
            path=str(ROOT),
            reactor=trial_reactor,
        )
        self.assertEqual((status, err), (0, b""), out)
        return out.decode()

    async def test_installed_once(self) -> None:
        self.assertEqual(await self.run_python(INSTALL), "True False\nDirectEPollReactor\n")

    async def test_real_connections(self) -> None:
        self.assertEqual(await self.run_python(TALK), "3000000 ConnectionDone\n")

    async def test_twistd_knows_it(self) -> None:
        self.assertIn("jetcamer", await self.run_python(TWISTD, "--help-reactors"))

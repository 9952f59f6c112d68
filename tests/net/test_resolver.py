"""Name resolution in threads: shared, cancelled, and never waited for."""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from jetcamer.net.resolver import ThreadedResolver

V4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))
V6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 443, 0, 7))


@implementer(IResolutionReceiver)
class Receiver:
    def __init__(self) -> None:
        self.began: Any = None
        self.found: list[Any] = []
        self.done: Deferred[list[Any]] = Deferred()

    def resolutionBegan(self, resolution: Any) -> None:
        self.began = resolution

    def addressResolved(self, address: Any) -> None:
        self.found.append(address)

    def resolutionComplete(self) -> None:
        self.done.callback(self.found)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


class ThreadedResolverTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.release = threading.Event()
        self.addCleanup(self.release.set)
        self.calls: list[tuple[Any, ...]] = []
        self.threads: list[threading.Thread] = []
        self.answer: Any = [V4, V6]

    def getaddrinfo(self, *args: Any) -> list[Any]:
        self.calls.append(args)
        self.threads.append(threading.current_thread())
        self.release.wait(15)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def resolver(self) -> ThreadedResolver:
        resolver = ThreadedResolver(reactor, self.getaddrinfo)
        verifyObject(IHostnameResolver, resolver)
        return resolver

    async def look_up(self, *args: Any) -> list[Any]:
        receiver = Receiver()
        resolution = self.resolver().resolveHostName(receiver, *args)
        self.assertIs(receiver.began, resolution)
        self.release.set()
        return await receiver.done

    async def test_addresses_of_both_families(self) -> None:
        self.assertEqual(
            await self.look_up("hub.example", 443),
            [IPv4Address("TCP", "192.0.2.1", 443), IPv6Address("TCP", "2001:db8::1", 443, 0, 7)],
        )
        self.assertEqual(self.calls, [("hub.example", 443, socket.AF_UNSPEC, socket.SOCK_STREAM)])

    async def test_one_family(self) -> None:
        await self.look_up("hub.example", 443, [IPv6Address])
        self.assertEqual(self.calls[0][2], socket.AF_INET6)

    async def test_a_name_that_is_not_found(self) -> None:
        self.answer = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.assertEqual(await self.look_up("hub.invalid", 443), [])

    async def test_a_name_that_cannot_be_one(self) -> None:
        self.answer = UnicodeError("label too long")
        self.assertEqual(await self.look_up("x" * 300, 443), [])

    async def test_the_same_name_is_looked_up_once_at_a_time(self) -> None:
        resolver = self.resolver()
        first, second, other = Receiver(), Receiver(), Receiver()
        resolver.resolveHostName(first, "hub.example", 443)
        resolver.resolveHostName(second, "hub.example", 443)
        resolver.resolveHostName(other, "b.example", 443)
        self.release.set()
        self.assertEqual(len(await first.done), 2)
        self.assertEqual(len(await second.done), 2)
        await other.done
        self.assertEqual(sorted(call[0] for call in self.calls), ["b.example", "hub.example"])
        again = Receiver()
        resolver.resolveHostName(again, "hub.example", 443)
        await again.done
        self.assertEqual(len(self.calls), 3)

    async def test_a_cancelled_look_up_says_nothing_more(self) -> None:
        resolver = self.resolver()
        cancelled, kept = Receiver(), Receiver()
        resolver.resolveHostName(cancelled, "hub.example", 443).cancel()
        resolver.resolveHostName(kept, "hub.example", 443)
        self.release.set()
        await kept.done
        self.assertFalse(cancelled.done.called)
        self.assertEqual(cancelled.found, [])

    async def test_whatever_goes_wrong_the_next_look_up_is_a_new_one(self) -> None:
        self.release.set()
        resolver = self.resolver()
        self.answer = MemoryError()
        first = Receiver()
        resolver.resolveHostName(first, "hub.example", 443)
        self.assertEqual(await first.done, [])
        patcher = self.patch(threading.Thread, "start", no_thread)
        second = Receiver()
        resolver.resolveHostName(second, "hub.example", 443)
        self.assertEqual(await second.done, [])
        patcher.restore()
        self.answer = [V4]
        third = Receiver()
        resolver.resolveHostName(third, "hub.example", 443)
        self.assertEqual(len(await third.done), 1)

    async def test_its_threads_hold_nobody_up_and_end(self) -> None:
        await self.look_up("hub.example", 443)
        self.assertTrue(self.threads[0].daemon)
        self.threads[0].join(5)
        self.assertFalse(self.threads[0].is_alive())

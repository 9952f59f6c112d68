"""Twisted's epoll reactor with a shorter way to what has something to read.

Between epoll and ``doRead`` Twisted's own goes through a dozen calls for each event, most of them
for the prefix of a log line that is seldom written. With thousands of connections that each say a
little, that is a good part of all the work. Here an event that says readable and nothing else
takes the short way; any other (writable, hung up, in error) takes Twisted's own.

What a reader sees is the same either way: its log prefix in the context, an exception logged and
the end of it, its connection lost for the same reason.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from errno import EWOULDBLOCK
from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.posixbase import _NO_FILEDESC
from twisted.internet.tcp import Server
from twisted.python import context, log
from twisted.python.log import ILogContext

from jetcamer.daemon.direct_tcp import DirectConnection, DirectPort

#: Connections whose `doRead` is `Connection`'s own.
_ACCEPTED = frozenset({Server, DirectConnection})

#: Bytes to read at first, and where there is more than that, the second time. The few are what fits
#: into the largest of the blocks (512 bytes) that Python keeps ready instead of asking the heap.
_FEW, _MANY = 479, 60 * 1024


class DirectEPollReactor(EPollReactor):
    """An `EPollReactor` but for what is done with the events of one poll, and its TCP ports."""

    def doPoll(self, timeout: float | None) -> None:
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except InterruptedError:
            return
        # One log context for all of them, its prefix set for each: who logs takes a copy.
        log_context = dict(context.get(ILogContext))
        contexts = context.theContextTracker.currentContext().contexts
        contexts.append({ILogContext: log_context})
        try:
            selectables = self._selectables
            for fd, event in events:
                # Looked up now: what came before may have unregistered it.
                selectable = selectables.get(fd)
                if selectable is None:
                    continue
                if event != EPOLLIN:
                    log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)
                elif type(selectable) in _ACCEPTED:
                    log_context["system"] = selectable.logstr
                    why = _receive(selectable)
                    if why is not None:
                        self._lose(selectable, why, why is CONNECTION_DONE, selectable.logstr)
                else:
                    self._read(selectable, fd, log_context)
        finally:
            contexts.pop()

    # ReactorBase calls it by this name.
    doIteration = doPoll

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> DirectPort:
        listening = DirectPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def _read(self, selectable: Any, fd: int, log_context: dict[str, Any]) -> None:
        """`log.callWithLogger` of `_doReadOrWrite`, as far as reading goes."""
        try:
            prefix = log_context["system"] = selectable.logPrefix()
        except Exception:
            log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, EPOLLIN)
            return
        why: Any = None
        in_read = False
        try:
            if selectable.fileno() == -1:
                why = _NO_FILEDESC
            else:
                why = selectable.doRead()
                in_read = True
        except BaseException:
            why = sys.exc_info()[1]
            log.err()
        if why:
            self._lose(selectable, why, in_read, prefix)

    def _lose(self, selectable: Any, why: Any, in_read: bool, prefix: str) -> None:
        try:
            self._disconnectSelectable(selectable, why, in_read)
        except KeyboardInterrupt:
            raise
        except BaseException:
            log.err(system=prefix)


def _receive(connection: Any) -> Any:
    """`Connection.doRead` of an accepted connection, which returns why the connection is over, or
    None; what the protocol raises is logged, and is why.

    Its buffer fits what mostly comes: to take 64 KiB from the heap for some hundred bytes costs
    as much as to read them.
    """
    if connection._aborting:
        return None
    try:
        receive = connection.socket.recv
        try:
            data = receive(_FEW)
            if len(data) == _FEW:
                with suppress(BlockingIOError):
                    data += receive(_MANY)
        except OSError as error:
            return None if error.errno == EWOULDBLOCK else CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        connection.protocol.dataReceived(data)
    except BaseException as error:
        log.err()
        return error
    return None


def install() -> None:
    """Make it the process's reactor.

    :raises ReactorAlreadyInstalledError: there is one.
    """
    from twisted.internet.main import installReactor

    installReactor(DirectEPollReactor())


def install_unless_there_is_one() -> bool:
    """Make it the process's reactor, unless one was chosen or imported before; whether it was."""
    if "twisted.internet.reactor" in sys.modules:
        return False
    install()
    return True

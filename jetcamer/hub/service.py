"""The hub, put together. No logic but the order in which its parts start and stop.

In: a configuration, a reactor, an environment. Out: one service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.daemon.clock import wall_clock_ms
from jetcamer.daemon.config_file import ConfigSource
from jetcamer.daemon.logging import DaemonService, fail_later, fail_start, in_words
from jetcamer.daemon.notify import Notifier, WatchdogService
from jetcamer.hub.admission import Admission, Offenders
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.service import APIService, HubAPI, ListenError
from jetcamer.hub.api.tokens import Tokens
from jetcamer.hub.bus.local import LocalBus
from jetcamer.hub.commands import Commands
from jetcamer.hub.config import HubConfig
from jetcamer.hub.enrolment import Enrolment
from jetcamer.hub.first_token import show_token
from jetcamer.hub.fleet import Fleet
from jetcamer.hub.gateway import Gateway
from jetcamer.hub.ingest import Ingest
from jetcamer.hub.refusals import Refusals
from jetcamer.hub.registry import AgentRegistry
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Connection, Policy, RateLimit, SessionListener
from jetcamer.hub.status import HubStatus
from jetcamer.hub.store.interface import Store, StoreError, StoreHealth
from jetcamer.hub.store.null import NullStore
from jetcamer.hub.store.retention import Retention
from jetcamer.hub.store.sqlite import SQLiteStore
from jetcamer.hub.vault import Vault, VaultError
from jetcamer.hub.websocket import Limits
from jetcamer.net.timers import RepeatingTimer
from jetcamer.net.url import join_authority

log = Logger()

#: Refusals that are older say nothing any more of how an agent is.
_RECALLED_MS = 86_400_000

#: How often secrets that have expired are looked for. Seconds.
_TICK = 60.0
#: How often the service manager is told how many agents are here, where that has changed. Seconds.
_STATUS_INTERVAL = 30.0


class StartError(Exception):
    """The hub cannot start; one line for a person."""


class Hub(DaemonService):
    """Everything that runs while ``twistd jetcamer-hub`` does."""

    def __init__(
        self,
        config: HubConfig,
        source: ConfigSource,
        *,
        reactor: Any,
        environ: MutableMapping[str, str],
        now_ms: Callable[[], int],
        listener: SessionListener | None,
        new_admin_token: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self._source = source
        self._reactor = reactor
        self._environ = environ
        self._now_ms = now_ms
        self._new_admin_token = new_admin_token
        self._notifier = Notifier(environ)
        #: The admin token, once, where this start has made it.
        self.on_first_token: Callable[[str], None] = partial(show_token, config.state_dir)

        self.fleet = Fleet(legacy_secret=config.legacy_secret)
        self.store: Store = _make_store(config, reactor, now_ms)
        self.bus = LocalBus(now_ms=now_ms)
        self.refusals = Refusals(reactor, self.fleet)
        self.offenders = Offenders(reactor, limit=config.bad_attempts_per_minute)
        self.ingest = Ingest(
            reactor,
            fleet=self.fleet,
            store=self.store,
            bus=self.bus,
            refusals=self.refusals,
            offenders=self.offenders,
            now_ms=now_ms,
            extra=listener,
        )
        self.registry = AgentRegistry(reactor, self.ingest)
        self.commands = Commands(
            reactor, registry=self.registry, store=self.store, bus=self.bus, now_ms=now_ms
        )
        self.ingest.commands = self.commands
        self._policy = Policy(
            RateLimit(config.messages_per_second, config.message_burst), self.refusals.explain
        )
        limits = Limits(
            max_message=config.max_message_bytes,
            ping_interval=config.ping_interval_seconds,
            handshake_timeout=config.handshake_timeout_seconds,
            auth_timeout=config.auth_timeout_seconds,
            idle_timeout=config.idle_timeout_seconds,
            max_unsent=config.max_unsent_bytes,
            drain_seconds=config.drain_seconds,
            trusted_proxies=config.trusted_proxies,
        )
        try:
            self.gateway = Gateway(
                reactor,
                config.listen,
                self._make_session,
                limits=limits,
                admission=Admission(reactor, config.handshakes_per_second),
                offenders=self.offenders,
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"listen: {in_words(error)}") from None
        self.tokens = Tokens(
            reactor, self.store, now_ms=now_ms, trusted_proxies=config.trusted_proxies
        )
        self.status = HubStatus(reactor, self, started_ms=now_ms())
        #: Made once the key of the secrets is at hand.
        self.enrolment: Enrolment
        self.api: APIService
        self._bound = False
        self._tick = RepeatingTimer(reactor, _TICK, self._tick_enrolment, name="[hub] secrets")
        self._status_timer = RepeatingTimer(
            reactor, _STATUS_INTERVAL, self._tell_status, name="[hub] status"
        )
        self._status_told = ""
        WatchdogService(self._notifier, reactor).setServiceParent(self)
        self._starting = False
        #: How the start ended; None while it goes on. And what fires then.
        self._outcome: Failure | bool | None = None
        self._settled: Deferred[None] = Deferred()
        self._waiting: list[Deferred[None]] = []

    def _make_session(self, connection: Connection) -> AgentSession:
        return AgentSession(connection, self.fleet, self.registry, self._now_ms, self._policy)

    # What `HubStatus` counts.

    def agents_online(self) -> int:
        return len(self.registry)

    def agents_known(self) -> int:
        return len(self.fleet)

    def store_health(self) -> StoreHealth:
        return self.store.health()

    def messages(self) -> Mapping[str, int]:
        return self.ingest.messages

    def refused(self) -> Mapping[str, int]:
        return self.refusals.counts

    # The service.

    def privilegedStartService(self) -> None:
        """Take the ports, before anything else.

        :raises SystemExit: with status 1, when one cannot be had, or the key of the secrets.
        """
        try:
            os.makedirs(self.config.state_dir, mode=0o700, exist_ok=True)
            vault = Vault.load(self.config.key_path, self._environ)
            self.enrolment = Enrolment(
                self.store,
                self.fleet,
                vault,
                now_ms=self._now_ms,
                close_session=self.registry.close_session,
                on_revoked=self.commands.agent_revoked,
                legacy_secret=self.config.legacy_secret,
            )
            self.api = self._make_api(self.enrolment)
            self.gateway.hold()
            self._listen()
            self._bound = True
        except (ListenError, VaultError) as error:
            raise fail_start(f"jetcamer-hub: {error}") from None
        except (OSError, ValueError) as error:
            raise fail_start(f"jetcamer-hub: {in_words(error)}") from None
        super().privilegedStartService()

    def _listen(self) -> None:
        try:
            self.gateway.privilegedStartService()
        except CannotListenError as error:
            words = getattr(error.socketError, "strerror", None) or str(error.socketError)
            # A Unix socket's path is its "port".
            where = error.port
            if isinstance(where, int):
                where = join_authority(error.interface or "*", where)
            raise ListenError(f"listen: {where}: {words}") from None
        except (OSError, OverflowError, ValueError) as error:
            raise ListenError(f"listen: {error}") from None
        try:
            self.api.bind()
        except OverflowError as error:
            raise ListenError(f"apiListen: {error}") from None

    def _make_api(self, enrolment: Enrolment) -> APIService:
        api = HubAPI(
            HubParts(
                clock=self._reactor,
                now_ms=self._now_ms,
                fleet=self.fleet,
                commands=self.commands,
                enrolment=enrolment,
                store=self.store,
                bus=self.bus,
                refusals=self.refusals,
                offenders=self.offenders,
                tokens=self.tokens,
                status=self.status,
                agent_url=self._agent_url,
                backup_dir=self.config.backup_dir,
            ),
            max_agents=self.config.metrics_max_agents,
        )
        self.commands.on_answer = api.exposition.command_answered
        return APIService(self._reactor, api, self.config.api_listen, names=self.config.api_names)

    def _agent_url(self, host: str) -> str:
        """Where agents that are told of this hub connect; "" where the hub cannot know.

        :param host: what whoever asks calls this hub.
        """
        if self.config.agent_url is not None:
            return self.config.agent_url
        for description, address in zip(self.config.listen, self.gateway.addresses, strict=False):
            port = getattr(address, "port", None)
            if port is not None:
                scheme = "wss" if description.startswith("ssl:") else "ws"
                return f"{scheme}://{join_authority(host, port)}/agent"
        return ""

    def startService(self) -> None:
        if not self._bound:
            self.privilegedStartService()
        for warning in self._source.warnings:
            log.warn("{words}", words=warning)
        super().startService()
        self._starting = True
        Deferred.fromCoroutine(self._start()).addCallbacks(self._ready, self._cannot_start)

    def when_ready(self) -> Deferred[None]:
        """Fires when agents and operators are let in; fails where that cannot be. After
        `startService`, however long."""
        if self._outcome is not None:
            return fail(self._outcome) if isinstance(self._outcome, Failure) else succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    async def _start(self) -> None:
        await self.store.open()
        await self.enrolment.load()
        self.fleet.recall(await self.store.own_refusals(self._now_ms() - _RECALLED_MS))
        await self.commands.start()
        for agent in self.fleet:
            if agent.revoked_ms is not None:
                self.commands.agent_revoked(agent.agent_id)
        self.ingest.start()
        self._tick.start()
        # The API answers from here on, and not before what it stands on.
        token = await self.tokens.ensure_admin(another=self._new_admin_token)
        self.api.startService()
        self.gateway.startService()
        self.gateway.release()
        self.status.start()
        for url in self.gateway.urls:
            log.info("[hub] agents: {url}", url=url)
        for url in self.api.urls:
            log.info("[hub] operators: {url}", url=url)
        if not self._agent_url("localhost"):
            log.warn("[hub] agents cannot be told where to connect: agentUrl is not set")
        if token is not None:
            await self._show(token)

    async def _show(self, token: str) -> None:
        """Show the admin token; one that nobody sees is deleted again, so that the next start
        makes another."""
        try:
            self.on_first_token(token)
        except OSError as error:
            digest = sha256(token.encode()).digest()
            for record in self.tokens.all():
                if record.digest == digest:
                    await self.store.delete_api_token(record.token_id)
            raise StartError(f"the admin token cannot be shown: {in_words(error)}") from None

    def _status_words(self) -> str:
        return f"{len(self.registry)} agents online, {len(self.fleet)} known"

    def _tell_status(self) -> None:
        words = self._status_words()
        if words != self._status_told:
            self._status_told = words
            self._notifier.status(words)

    def _ready(self, _: None) -> None:
        self._outcome = True
        self._status_told = self._status_words()
        self._notifier.ready(self._status_told)
        self._status_timer.start()
        self._settled.callback(None)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _cannot_start(self, failure: Failure) -> None:
        self._outcome = failure
        self._settled.callback(None)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(failure)
        if waiting:
            return
        if failure.check(StartError, StoreError, VaultError):
            fail_later(self._reactor, f"jetcamer-hub: {failure.getErrorMessage()}")
        else:
            log.failure("[hub] cannot start", failure)
            fail_later(self._reactor, "jetcamer-hub: cannot start; the log says why")

    def stopService(self) -> Deferred[None]:
        """Not ready; agents sent away over some seconds; everything written. Then it fires."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._notifier.stopping()
        if self._starting:
            await self._settled
        self.commands.stop()
        self._tick.stop()
        self._status_timer.stop()
        await self.gateway.stopService()
        if self._bound:
            await self.api.stopService()
        self.registry.stop()
        self.ingest.stop()
        self.status.stop()
        await self.store.close()
        await super().stopService()
        self._notifier.close()

    def _tick_enrolment(self) -> None:
        self.enrolment.tick()


def _make_store(config: HubConfig, reactor: Any, now_ms: Callable[[], int]) -> Store:
    if config.store == "off":
        return NullStore(now_ms=now_ms)
    day = 86_400.0
    retention = Retention(
        raw_seconds=round(config.raw_metrics_hours * 3600),
        minute_seconds=round(config.minute_metrics_days * day),
        hour_seconds=round(config.hour_metrics_days * day),
        log_seconds=round(config.log_days * day),
        session_seconds=round(config.session_days * day),
        command_seconds=round(config.command_days * day),
        refusal_seconds=round(config.refusal_days * day),
        max_bytes=config.max_database_bytes,
    )
    return SQLiteStore(reactor, config.database_path, now_ms=now_ms, retention=retention)


def build_hub(
    config: HubConfig,
    *,
    reactor: Any,
    source: ConfigSource | None = None,
    environ: Mapping[str, str],
    now_ms: Callable[[], int] = wall_clock_ms,
    listener: SessionListener | None = None,
    new_admin_token: bool = False,
) -> Hub:
    """The hub for `config`, not started.

    :param environ: ``os.environ``, from which the service manager's variables are then removed;
        any other mapping is copied.
    :param listener: hears every verified message, after the hub has dealt with it.
    :param new_admin_token: make an admin token also where there is one: for who has lost it.
    """
    return Hub(
        config,
        source or ConfigSource(path=None),
        reactor=reactor,
        environ=environ if isinstance(environ, MutableMapping) else dict(environ),
        now_ms=now_ms,
        listener=listener,
        new_admin_token=new_admin_token,
    )

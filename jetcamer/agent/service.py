"""The agent, put together. No logic but the order in which its parts start and stop.

In: a configuration, a reactor, an environment. Out: one service.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import ILogObserver, Logger, globalLogPublisher

from jetcamer import __version__
from jetcamer.agent.commands import (
    CommandDispatcher,
    CommandRegistry,
    DeclaredProcess,
    ProcessRunner,
    builtin_commands,
    compile_declared,
    find_plugins,
)
from jetcamer.agent.config import AgentConfig, ConfigSource
from jetcamer.agent.credential_store import FILE_NAME, LEGACY_PATH, CredentialStore
from jetcamer.agent.credentials import (
    AwsAccess,
    CredentialFinder,
    CredentialWatcher,
    LinkCredentials,
)
from jetcamer.agent.ec2 import MetadataClient
from jetcamer.agent.link import AgentLink
from jetcamer.agent.link_machine import SessionMaker
from jetcamer.agent.local_http import ListenError, LocalHTTP
from jetcamer.agent.logs.shipping import LogShipping
from jetcamer.agent.machine import read_machine_id
from jetcamer.agent.metrics import MetricsSampler
from jetcamer.agent.reconnect import ReconnectPolicy
from jetcamer.agent.session import Session, SessionSettings
from jetcamer.daemon.logging import DaemonService, fail_start
from jetcamer.daemon.notify import Notifier, WatchdogService
from jetcamer.net.endpoint import ConnectFailed, WebSocketEndpoint
from jetcamer.net.proxy import Proxy, proxy_from_environment
from jetcamer.net.timers import at_most
from jetcamer.net.tls import ClientTrust
from jetcamer.net.websocket import Disconnected, WebSocketConnection
from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey

if TYPE_CHECKING:
    from jetcamer.agent.health import HealthCheck
    from jetcamer.agent.logs.posted import Stored
    from jetcamer.agent.logs.s3_validate import S3Question

log = Logger()

#: Our additions to the protocol that a server may use; see docs/protocol.md, Envelope.
ADDITIONS = ("inReplyTo", "details")


#: Seconds that commands which are cut short have to answer before the link closes.
COMMANDS_GRACE = 0.9


class Agent(DaemonService):
    """Everything that runs while ``twistd jetcamer`` does."""

    def __init__(
        self,
        config: AgentConfig,
        source: ConfigSource,
        *,
        reactor: Any,
        environ: MutableMapping[str, str],
        hostname: str,
    ) -> None:
        super().__init__()
        self.version = __version__
        self.config = config
        self._source = source
        self._reactor = reactor
        self._environ = environ
        # Before anything that may start a child: it must not inherit the manager's socket.
        self._notifier = Notifier(environ)

        self.store = CredentialStore(os.path.join(config.state_dir, FILE_NAME), LEGACY_PATH)
        self.finder = CredentialFinder(
            config, source, self.store, MetadataClient(reactor, environ), environ, hostname
        )
        self.registry = self._make_registry()
        self.dispatcher = CommandDispatcher(
            reactor, self.registry, timeout=config.command_timeout_seconds
        )
        self._guard = ReplayGuard()
        self._settings = SessionSettings(
            hostname=hostname,
            version=__version__,
            capabilities=(*ADDITIONS, *(f"command:{name}" for name in self.registry.names())),
            metrics_interval=config.metrics_interval_seconds,
            heartbeat_interval=config.heartbeat_interval_seconds,
        )
        self._trust = ClientTrust(config.ws_ca_file, config.ws_server_name)
        self.link = AgentLink(
            reactor,
            now=time.time,
            dial=self._dial,
            make_session=self._make_session,
            policy=ReconnectPolicy(config.ws_reconnect_jitter),
        )
        self.link.on_change(self._link_changed)
        self.logs = LogShipping(
            reactor,
            config,
            queue=self.link.queue,
            say=self.link.send_log,
            finder=self.finder,
            environ=environ,
            machine_id=self.machine_id,
            metadata=lambda: {
                "site-id": config.site_id,
                "env": config.env,
                "instance-id": self.finder.last.agent_id if self.finder.last else hostname,
            },
            now=time.time,
        )
        self.link.on_rate_limited(self.logs.server_limits)
        self._sampler = MetricsSampler(
            reactor, extended=config.metrics_extended, logs=self.logs.totals
        )
        self.watcher = CredentialWatcher(
            reactor, config.credential_poll_seconds, self.finder, self.link.set_credentials
        )
        self._host, port = config.listen_address()
        self.local_http = LocalHTTP(
            reactor,
            host=self._host,
            port=port,
            token=config.web_token,
            view=self,
            names=(hostname,) if config.web_allow_remote else (),
        )
        self._forwarder: ILogObserver | None = None
        if config.forward_own_logs:
            from jetcamer.agent.own_logs import OwnLogForwarder

            self._forwarder = OwnLogForwarder(self.link.send_log, reactor.seconds)
        watchdog = WatchdogService(self._notifier, reactor)
        for part in (watchdog, self.local_http, self.link, self.logs):
            part.setServiceParent(self)

    def _make_registry(self) -> CommandRegistry:
        runner = ProcessRunner(self._reactor, self._environ)
        registry = CommandRegistry(
            builtin_commands(
                version=__version__,
                machine_id=self.machine_id,
                check_health=self.check_health,
                runner=runner,
            )
        )
        for name, declared in self.config.commands.items():
            template = compile_declared(
                name, declared.argv, declared.timeout_seconds, declared.args
            )
            registry.add(DeclaredProcess(template, runner))
        registry.add_found(find_plugins())
        return registry

    def _dial(self, credentials: LinkCredentials, make: SessionMaker) -> Deferred[Session]:
        assert credentials.url is not None
        configured = self.config.ws_proxy
        try:
            proxy = (
                Proxy.parse(configured)
                if configured
                else proxy_from_environment(credentials.url, self._environ)
            )
        except ValueError as error:  # of the environment: the configuration was checked
            return fail(ConnectFailed(str(error), kind="proxy"))
        endpoint = WebSocketEndpoint(self._reactor, credentials.url, trust=self._trust, proxy=proxy)
        return endpoint.connect(make)

    def _make_session(
        self,
        connection: WebSocketConnection,
        credentials: LinkCredentials,
        on_disconnected: Callable[[Disconnected], None],
    ) -> Session:
        assert credentials.secret is not None
        return Session(
            connection,
            SigningKey(credentials.secret),
            credentials.agent_id,
            settings=self._settings,
            queue=self.link.queue,
            guard=self._guard,
            sampler=self._sampler,
            dispatcher=self.dispatcher,
            counters=self.link.counters,
            clock=self._reactor,
            now=time.time,
            on_disconnected=on_disconnected,
        )

    # What the local interface asks.

    def ws_status(self) -> dict[str, Any]:
        return {
            **self.link.status(),
            "version": __version__,
            "metricsFailures": dict(self._sampler.failures),
            "logs": self.logs.status(),
        }

    def machine_id(self) -> str:
        return read_machine_id()

    def upload_batch(self, body: bytes, count: int) -> Deferred[Stored]:
        return self.logs.upload_batch(body, count)

    def s3_question(self) -> S3Question:
        from jetcamer.agent.logs.s3_validate import S3Question

        try:
            machine_id = self.machine_id()
        except OSError:
            machine_id = None
        kind = self.finder.credentials_type()
        access = AwsAccess(kind, self.store.load(), self.finder.aws_region)
        return S3Question(
            access=self.logs.access(access),
            machine_id=machine_id,
            credentials_type=kind,
            environ=self._environ,
            last_error=self.logs.last_error,
            uploads_work=self.logs.uploads_work,
            not_archived=self.logs.why_not,
        )

    async def _look_again(self) -> bool:
        self.logs.look_now()
        await self.watcher.look_now()
        return self.link.state not in ("waiting", "stopped")

    def credentials_changed(self) -> Deferred[bool]:
        """Look for credentials at once; True when the link is started with what was found."""
        return Deferred.fromCoroutine(self._look_again())

    # What `run_health_check` asks.

    async def check_health(self) -> tuple[HealthCheck, ...]:
        from jetcamer.agent.health import HealthInputs, check_health

        server_date, age = self.link.server_time or (None, 0.0)
        return check_health(
            HealthInputs(
                now=time.time(),
                state_dir=self.config.state_dir,
                link=self.link.status(),
                credentials=self.finder.last,
                server_date=server_date,
                server_date_age=age,
                config_path=self._source.path,
                config_has_secret=any(
                    (self.config.ws_secret, self.config.web_token, self.config.ws_proxy)
                ),
                log_paths=self.config.log_paths,
            )
        )

    def _link_changed(self) -> None:
        self.logs.link_changed()
        self._notifier.status(f"{self.link.state}: {self.link.describe()}")

    def privilegedStartService(self) -> None:
        """Open the local interface, before anything else.

        :raises SystemExit: with status 1, when its port cannot be had.
        """
        try:
            self.local_http.bind()
        except ListenError as error:
            raise fail_start(f"jetcamer: {error}") from None
        super().privilegedStartService()

    def startService(self) -> None:
        if self._forwarder is not None:
            globalLogPublisher.addObserver(self._forwarder)
        for warning in self._source.warnings:
            log.warn("{words}", words=warning)
        self.dispatcher.start()
        super().startService()
        log.info("[http] listening on {host}:{port}", host=self._host, port=self.local_http.port)
        self.watcher.start()
        self._reactor.callWhenRunning(self._notifier.ready)

    def stopService(self) -> Deferred[None]:
        """Fires when nothing of the agent is left: after 3 s at the most, mostly at once."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._notifier.stopping()
        self.watcher.stop()
        # Commands that are cut short still answer, and the link flushes what they say.
        commands = self.dispatcher.stop()
        await at_most(self._reactor, COMMANDS_GRACE, commands)
        await super().stopService()
        await commands
        if len(self.link.queue):
            log.warn("[ws] {n} messages could not be delivered", n=len(self.link.queue))
        if self._forwarder is not None:
            globalLogPublisher.removeObserver(self._forwarder)
        self._notifier.close()


def build_agent(
    config: AgentConfig,
    *,
    reactor: Any,
    source: ConfigSource | None = None,
    environ: Mapping[str, str],
    hostname: str | None = None,
) -> Agent:
    """The agent for `config`, not started.

    :param environ: ``os.environ``, from which the service manager's variables are then removed;
        any other mapping is copied.
    """
    return Agent(
        config,
        source or ConfigSource(path=None),
        reactor=reactor,
        environ=environ if isinstance(environ, MutableMapping) else dict(environ),
        hostname=hostname or socket.gethostname(),
    )

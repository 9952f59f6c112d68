"""Server endpoints from their descriptions.

In: what an operator writes, ``tcp:8080`` or ``ssl:443:privateKey=key.pem:certKey=cert.pem``, in
Twisted's syntax. Out: an endpoint to listen on. ``ssl:`` is served by `jetcamer.net.memory_tls`
with certificates that are read again when their files change; everything else is Twisted's own.

It never says what is in a key's file.
"""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from jetcamer.net.certificates import CertificateFiles
from jetcamer.net.memory_tls import TLSServerFactory

#: Connections that wait to be accepted; Twisted's 50 are too few for a fleet that comes back.
#: The kernel has a limit of its own (net.core.somaxconn).
_BACKLOG = 1024

#: Of a Unix socket where the description does not say. Who may write to it is believed what he
#: says of those whose requests he passes on.
_UNIX_MODE = "660"

_PROTOCOLS = ("http/1.1",)

#: For TLS 1.2; those of TLS 1.3 are all good.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"

_OPTIONS = frozenset({"port", "privateKey", "certKey", "extraCertChain", "interface", "backlog"})


def server_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """What `description` describes.

    ``ssl:PORT:privateKey=FILE:certKey=FILE[:extraCertChain=FILE][:interface=ADDRESS]
    [:backlog=N]``, where a colon within a value is written ``\\:``. `certKey` may hold the chain;
    without it, the file of the private key holds the certificate too.

    ``unix:PATH[:mode=MODE]``: where no mode is given, the owner and his group may connect.

    :raises ValueError: it cannot be understood, or a certificate or key not be used; one line.
    :raises OSError: a certificate or key cannot be read; one line.
    """
    kind, positional, options = _split(description)
    if kind == "ssl":
        return _ssl_endpoint(reactor, positional, options)
    if kind == "unix" and "mode" not in options and len(positional) <= ("address" not in options):
        description += f":mode={_UNIX_MODE}"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (TypeError, KeyError, RuntimeError, AttributeError, IndexError) as error:
        raise ValueError(f"{description}: not a description of an endpoint ({error})") from None
    return endpoint


@implementer(IStreamServerEndpoint)
class TLSServerEndpoint:
    """An endpoint whose connections are those of `endpoint`, over TLS.

    :param files: the certificate, looked at again at new connections.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, reactor: Any, files: CertificateFiles
    ) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._files = files

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        factory = TLSServerFactory(
            protocolFactory, self._files.context, self._reactor, protocols=_PROTOCOLS
        )
        listening: Deferred[IListeningPort] = self._endpoint.listen(factory)
        return listening


def server_context() -> ssl.SSLContext:
    """How TLS is served, but for the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= (
        ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    )
    context.set_alpn_protocols(list(_PROTOCOLS))
    # Agents hardly ever resume, and each ticket of TLS 1.3 costs work and memory at once.
    context.num_tickets = 0
    return context


def _ssl_endpoint(
    reactor: Any, positional: list[str], options: dict[str, str]
) -> IStreamServerEndpoint:
    if positional:
        options = {"port": positional[0], **options}
    if len(positional) > 1:
        raise ValueError(f"ssl: {positional[1]!r} is no option (NAME=VALUE)")
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise ValueError(f"ssl: unknown option {unknown[0]} (known: {', '.join(sorted(_OPTIONS))})")
    key = options.get("privateKey", "server.pem")
    files = CertificateFiles(
        options.get("certKey", key),
        key,
        options.get("extraCertChain"),
        make_context=server_context,
        seconds=reactor.seconds,
    )
    files.context()
    endpoint = TCP4ServerEndpoint(
        reactor,
        _number("port", options.get("port", ""), 0, 65535),
        _number("backlog", options.get("backlog", str(_BACKLOG)), 1, 65535),
        options.get("interface", ""),
    )
    return TLSServerEndpoint(endpoint, reactor, files)


def _number(name: str, text: str, lowest: int, highest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not lowest <= number <= highest:
        raise ValueError(f"ssl: {name} is {text!r}, not a number from {lowest} to {highest}")
    return number


def _split(description: str) -> tuple[str, list[str], dict[str, str]]:
    """The kind, the arguments without a name, and those with one. Twisted's rules: a backslash
    takes the next character as it is, and only the first equals sign of an argument counts."""
    arguments: list[list[str]] = [[""]]
    characters = iter(description)
    for character in characters:
        if character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise ValueError(f"{description}: ends within an escape")
            arguments[-1][-1] += escaped
        elif character == ":":
            arguments.append([""])
        elif character == "=" and len(arguments[-1]) == 1:
            arguments[-1].append("")
        else:
            arguments[-1][-1] += character
    first, *rest = arguments
    named = {argument[0]: argument[1] for argument in rest if len(argument) == 2}
    return "=".join(first), [each[0] for each in rest if len(each) == 1], named

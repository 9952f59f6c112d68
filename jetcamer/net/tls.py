"""TLS for clients, failing closed.

In: the host that a URL names. Out: connection creators for Twisted's TLS. A handshake ends well
only if the chain leads to a trusted root *and* the certificate names the host; any doubt, any
exception on the way to that answer included, is a refusal. Nothing turns verification off.

Twisted's own ``optionsForClientTLS`` is not used: its callback lets a certificate pass whose names
cannot be read or that has none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from jetcamer.net.errors import printable
from jetcamer.net.url import check_host, is_ip

log = Logger()

#: For TLS 1.2; those of TLS 1.3 are all good.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL"

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END [A-Z ]+-----", re.DOTALL)
_HASH_LINK = re.compile(r"[0-9a-f]{8}\.\d+")

# OpenSSL's verification errors (x509_vfy.h) that deserve words of their own.
_UNKNOWN_ISSUER = frozenset({2, 20, 21, 27})
_BAD_SIGNATURE, _NOT_YET_VALID, _EXPIRED = 7, 9, 10
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN = 18, 19
_OTHER_WORDS = {
    22: "the certificate chain is too long",
    23: "the certificate was revoked",
    24: "a certificate in the chain may not issue others",
    26: "the certificate is not meant for a server",
    66: "the certificate's key is too short",
    67: "the key of a certificate authority in the chain is too short",
    68: "a certificate in the chain is signed with a weak digest",
}

_NOT_TLS = ("wrong version number", "packet length too long", "http request", "unknown protocol")


class TLSFailed(SSL.Error):
    """A handshake failed, or its outcome was refused; ``str()`` says why in one line."""

    def __init__(self, words: str) -> None:
        # The shape of OpenSSL's own errors, which Twisted and Autobahn take apart.
        super().__init__([("", "", words)])
        self.words = words

    def __str__(self) -> str:
        return self.words


class ClientTrust:
    """Whom a client trusts: the platform's roots, those of `ca_file`, and nobody else.

    :param ca_file: PEM certificates trusted beside the platform's.
    :param server_name: the name or address that certificates must carry, in place of the host of
        the URL; also what the server is told by SNI, if it is a name.
    :raises ValueError: `ca_file` cannot be read or holds no certificate, or `server_name` is no
        name; one line.

    The roots are loaded at the first use and shared by all connections. They are loaded anew when
    `ca_file` has changed, which is looked at before each connection; while it cannot be used, the
    last good certificates of it stay trusted.
    """

    def __init__(self, ca_file: str | None = None, server_name: str | None = None) -> None:
        self.ca_file = ca_file
        self.server_name = None if server_name is None else check_host(server_name.lower())
        self._signature = None if ca_file is None else _signature(ca_file)
        self._extra_roots = [] if ca_file is None else _read_certificates(ca_file)
        self._warned = False
        self._context: SSL.Context | None = None

    def connection_creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What starts TLS to `host`, a name or an IP address without brackets."""
        if self.ca_file is not None:
            self._look_again(self.ca_file)
        if self._context is None:
            self._context = _make_context(self._extra_roots)
        name = self.server_name or check_host(host.lower())
        remedy = "wsCaFile does not hold it" if self.ca_file else "set wsCaFile to trust it"
        return _ConnectionCreator(self._context, name, remedy)

    def _look_again(self, path: str) -> None:
        # Taken before the file is read, so that what is written meanwhile shows the next time;
        # kept only when it could be read, so that a trouble is looked into until it is over.
        signature = _signature(path)
        if signature is not None and signature == self._signature:
            self._warned = False
            return
        try:
            roots = _read_certificates(path)
        except ValueError as problem:
            if not self._warned:
                log.warn("{problem}; those read before stay trusted", problem=str(problem))
            self._warned = True
            return
        self._signature, self._extra_roots, self._context = signature, roots, None
        self._warned = False
        log.info(
            "{path} has changed: its {count} certificates are trusted", path=path, count=len(roots)
        )


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionCreator:
    def __init__(self, context: SSL.Context, host: str, remedy: str) -> None:
        self._context = context
        self._host = host.removesuffix(".")
        self._remedy = remedy

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = _VerifiedConnection(self._context, self._host, self._remedy)
        if not is_ip(self._host):  # RFC 6066 §3: SNI carries no addresses
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


class _VerifiedConnection(SSL.Connection):
    """A TLS connection that carries no data before the peer's certificate was accepted twice.

    Once by OpenSSL's callback, certificate by certificate; once more when the handshake is over,
    whether or not that callback was ever called.

    :param remedy: what is said of an authority that is not trusted.
    """

    def __init__(self, context: SSL.Context, host: str, remedy: str) -> None:
        super().__init__(context, None)
        self._host = host
        self._remedy = remedy
        self._identity: ServiceID = IPAddress_ID(host) if is_ip(host) else DNS_ID(host)
        self._refusal: str | None = None
        self._leaf: bytes | None = None
        self._confirmed = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (SSL.WantReadError, SSL.WantWriteError, SSL.SysCallError):
            raise  # wants more data, or the other side is gone
        except Exception as error:
            raise TLSFailed(self._refusal or explain(error)) from error
        if not self._confirmed:
            self._confirm()
            self._confirmed = True

    def send(self, buf: bytes, flags: int = 0) -> int:  # type: ignore[override]
        if not self._confirmed:
            raise SSL.WantReadError
        return super().send(buf, flags)

    def judge(self, certificate: crypto.X509, error: int, depth: int, ok: bool) -> bool:
        """Whether one certificate of the chain may pass. The first refusal stands."""
        if self._refusal is None:
            self._refusal = self._doubt(certificate, error, depth, ok)
        return self._refusal is None

    def _doubt(self, certificate: crypto.X509, error: int, depth: int, ok: bool) -> str | None:
        try:
            if not ok:
                return _chain_words(certificate, error, depth, self._remedy)
            if depth == 0:
                self._leaf = certificate.digest("sha256")
                return self._identity_doubt(certificate)
        except Exception as problem:
            return f"the certificate cannot be read ({printable(str(problem))})"
        return None

    def _identity_doubt(self, certificate: crypto.X509) -> str | None:
        try:
            verify_service_identity(extract_patterns(certificate), [self._identity], [])
        except VerificationError:
            wanted = f"IP address {self._host}" if is_ip(self._host) else self._host
            names = _names(certificate)
            return f"the certificate is not valid for {wanted} (it names {names})"
        except CertificateError as problem:
            if _has_names(certificate):
                return f"the certificate's names cannot be used: {printable(str(problem), 120)}"
            return "the certificate names no host (it has no subjectAltName)"
        except Exception as problem:
            words = printable(str(problem), 120)
            return f"the certificate's subjectAltName cannot be read ({words})"
        return None

    def _confirm(self) -> None:
        try:
            certificate = self.get_peer_certificate()
            if certificate is None or certificate.digest("sha256") != self._leaf:
                doubt: str | None = "the server's certificate was not verified"
            else:
                doubt = self._refusal or self._identity_doubt(certificate)
        except Exception as problem:
            doubt = f"the server's certificate was not verified ({printable(str(problem))})"
        if doubt is not None:
            raise TLSFailed(doubt)


def _verify(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    return isinstance(connection, _VerifiedConnection) and connection.judge(
        certificate, error, depth, bool(ok)
    )


def _make_context(extra_roots: list[crypto.X509]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # A resumed session would skip the verification.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
    _add_platform_roots(context)
    store = context.get_cert_store()
    assert store is not None
    for root in extra_roots:
        store.add_cert(root)
    context.set_cipher_list(_CIPHERS)
    return context


def _add_platform_roots(context: SSL.Context) -> None:
    """Trust what the platform trusts.

    Most Linux systems hold their roots twice, as one file and as a folder with a link per root
    that OpenSSL reads on demand. The file costs 1.4 MB for good, the folder nothing: where the
    folder has all that the file has, it alone is used. The two variables are OpenSSL's own.
    """
    bundle, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if bundle is None and folder is None:
        bundle, folder = "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs"
    if bundle and folder and _folder_holds(folder, bundle):
        context.load_verify_locations(None, folder)
    else:
        context.set_default_verify_paths()


def _folder_holds(folder: str, bundle: str) -> bool:
    """Whether each certificate of the file `bundle` has its hash link in `folder`."""
    try:
        wanted = set(_PEM.findall(Path(bundle).read_bytes()))
        for entry in os.scandir(folder) if wanted else ():
            if _HASH_LINK.fullmatch(entry.name):
                wanted.difference_update(_PEM.findall(Path(entry.path).read_bytes()))
    except OSError:
        return False
    return not wanted


def _signature(path: str) -> tuple[int, ...] | None:
    """What changes when the file does; None where there is none to be seen."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _read_certificates(path: str) -> list[crypto.X509]:
    try:
        blocks = _PEM.findall(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path!r} cannot be read: {error}") from None
    if not blocks:
        raise ValueError(f"{path} holds no certificate in PEM form")
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks]
    except (crypto.Error, ValueError):
        raise ValueError(f"{path} holds a damaged certificate") from None


def _chain_words(certificate: crypto.X509, error: int, depth: int, remedy: str) -> str:
    """What is wrong with the chain at this certificate."""
    if error in _OTHER_WORDS:
        return _OTHER_WORDS[error]
    parsed = certificate.to_cryptography()
    subject, issuer = _distinguished(parsed.subject), _distinguished(parsed.issuer)
    whose = "certificate" if depth == 0 else f"certificate of the authority {subject}"
    if error == _EXPIRED:
        return f"{whose} expired on {parsed.not_valid_after_utc:%Y-%m-%d}"
    if error == _NOT_YET_VALID:
        since = f"{parsed.not_valid_before_utc:%Y-%m-%d}"
        return f"{whose} is not valid before {since}; is the clock of this machine right?"
    if error == _SELF_SIGNED:
        return f"self-signed certificate ({subject}); {remedy}"
    if error == _SELF_SIGNED_IN_CHAIN:
        return f"unknown certificate authority ({subject}); {remedy}"
    if error in _UNKNOWN_ISSUER:
        return f"unknown certificate authority (issuer {issuer}); {remedy}"
    if error == _BAD_SIGNATURE:
        return (
            f"{issuer}, as it is trusted here, did not sign the {whose}; is wsCaFile out of date?"
        )
    return f"the {whose} was refused (OpenSSL's verification error {error})"


def _distinguished(name: x509.Name) -> str:
    for oid, label in ((NameOID.COMMON_NAME, "CN"), (NameOID.ORGANIZATION_NAME, "O")):
        for attribute in name.get_attributes_for_oid(oid):
            return f"{label}={printable(str(attribute.value))}"
    return "without a name"


def _has_names(certificate: crypto.X509) -> bool:
    extensions = certificate.to_cryptography().extensions
    return any(isinstance(e.value, x509.SubjectAlternativeName) for e in extensions)


def _names(certificate: crypto.X509) -> str:
    extension = certificate.to_cryptography().extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    labels = {"DNSName": "DNS", "IPAddress": "IP", "UniformResourceIdentifier": "URI"}
    names = []
    for name in extension.value:
        kind = type(name).__name__
        names.append(f"{labels.get(kind, kind)}:{printable(str(name.value))}")
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")


def explain(error: Exception) -> str:
    """Words for an error of OpenSSL's that is about something else than the certificate."""
    if isinstance(error, SSL.ZeroReturnError):
        return "the server ended the handshake"
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(entry[2]) for entry in queue if len(entry) > 2 and entry[2]]
    if any(reason.startswith(_NOT_TLS) for reason in reasons):
        return "the server does not speak TLS on this port"
    for reason in reasons:
        _, alert, what = reason.partition("alert ")
        if alert:
            return f"the server refused the handshake ({printable(what)})"
    return f"the handshake failed ({printable('; '.join(reasons) or type(error).__name__)})"

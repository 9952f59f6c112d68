"""A server's certificate as it is on disk now.

In: the paths of PEM files. Out: an `ssl.SSLContext` that serves them, a new one once they have
been renewed. A renewal that cannot be used leaves the old one in service.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Callable

from twisted.logger import Logger

_log = Logger()

#: The files are looked at no more often than this. Seconds.
CHECK_EVERY = 10.0

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s.+?\s-----END CERTIFICATE-----", re.DOTALL
)

_Signature = tuple[tuple[int, ...] | None, ...]


class CertificateFiles:
    """Makes contexts from a certificate, its key and the certificates between it and the root.

    :param chain: a file of more certificates to send; those after the first in `certificate` are
        sent as well.
    :param make_context: a server's context without a certificate.
    :param seconds: a clock.
    """

    def __init__(
        self,
        certificate: str,
        key: str,
        chain: str | None = None,
        *,
        make_context: Callable[[], ssl.SSLContext],
        seconds: Callable[[], float],
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.chain = chain
        self._make_context = make_context
        self._seconds = seconds
        self._signature: _Signature | None = None
        self._next_check = 0.0
        self._warned = False
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """What to serve the next connection with.

        :raises ValueError, OSError: only the first time; one line.
        """
        now = self._seconds()
        if self._context is None:
            # Taken before the files are read: what is written meanwhile shows the next time.
            self._signature = self._look()
            self._context = self._load()
            self._next_check = now + CHECK_EVERY
        elif now >= self._next_check:
            self._next_check = now + CHECK_EVERY
            self._context = self._current(self._context)
        return self._context

    def _current(self, context: ssl.SSLContext) -> ssl.SSLContext:
        signature = self._look()
        if signature == self._signature:
            self._warned = False
            return context
        try:
            context = self._load()
        except (ValueError, OSError) as problem:
            # Tried again until it works: the key may be written a moment after the certificate.
            if not self._warned:
                _log.warn("[tls] {problem}; the certificate before stays", problem=str(problem))
            self._warned = True
            return context
        self._signature = signature
        self._warned = False
        _log.info("[tls] the certificate {path} has been renewed", path=self.certificate)
        return context

    def _look(self) -> _Signature:
        """What changes when one of the files does."""
        paths = (self.certificate, self.key, self.chain)
        return tuple(_signature(path) for path in paths if path is not None)

    def _load(self) -> ssl.SSLContext:
        certificates = _read_certificates(self.certificate)
        if self.chain is not None:
            certificates += _read_certificates(self.chain)
        # OpenSSL wants files. The key stays in its own.
        with open(self.key, "rb"):
            context = self._make_context()
        with tempfile.NamedTemporaryFile(suffix=".pem") as together:
            together.write(b"\n".join(certificates) + b"\n")
            together.flush()
            try:
                context.load_cert_chain(together.name, self.key, self._no_password)
            except ssl.SSLError as error:
                raise ValueError(self._words(error)) from None
        return context

    def _no_password(self) -> str:
        # Without this OpenSSL would ask the terminal.
        raise ValueError(f"the private key {self.key} has a password; one without is needed")

    def _words(self, error: ssl.SSLError) -> str:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            return f"the private key {self.key} is not that of the certificate {self.certificate}"
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.certificate)
        except ssl.SSLError:
            return f"the certificate {self.certificate} is damaged"
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
            return f"the certificate {self.certificate} is too weak ({error.reason})"
        return f"{self.key} holds no private key that can be used"


def _read_certificates(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        found = _CERTIFICATE.findall(file.read())
    if not found:
        raise ValueError(f"{path} holds no certificate in PEM form")
    return list(found)


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)

"""Certificates for tests: good ones, and every sort of bad one.

``ca = TestCA(self.mktemp())`` makes an authority; ``ca.issue(dns=["hub.example"])`` a certificate
and key as PEM files, and ``.server_context()`` what a TLS server of Twisted's wants.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from twisted.internet import ssl

_numbers = itertools.count(1)
_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)


class Certificate:
    """A certificate, its key and, where there are any, the certificates sent with it."""

    def __init__(
        self,
        folder: Path,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        chain: Sequence[x509.Certificate] = (),
    ) -> None:
        number = next(_numbers)
        self.certificate = certificate
        self.key = key
        self.chain = tuple(chain)
        #: PEM files.
        self.path_cert = str(folder / f"{number}-cert.pem")
        self.path_key = str(folder / f"{number}-key.pem")
        pem = serialization.Encoding.PEM
        Path(self.path_cert).write_bytes(
            b"".join(each.public_bytes(pem) for each in (certificate, *self.chain))
        )
        Path(self.path_key).write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    def server_context(self, **options: object) -> ssl.CertificateOptions:
        """What ``reactor.listenSSL`` and ``wrapServerTLS`` take."""
        from OpenSSL import crypto

        return ssl.CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(self.key),
            certificate=crypto.X509.from_cryptography(self.certificate),
            extraCertChain=[crypto.X509.from_cryptography(each) for each in self.chain],
            **options,
        )


class TestCA:
    """A certificate authority of its own; `path_cert` is what a client is to trust."""

    __test__ = False

    def __init__(
        self,
        folder: str | Path,
        name: str = "JetCamer test CA",
        *,
        not_after: datetime | None = None,
        parent: TestCA | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.parent = parent
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuer, issuer_key = (name, self.key) if parent is None else (parent.name, parent.key)
        self.certificate = (
            _builder(name, issuer, self.key, _BEGIN, not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )
        self.path_cert = str(self.folder / f"ca-{next(_numbers)}.pem")
        Path(self.path_cert).write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        *,
        dns: Sequence[str] = (),
        ips: Sequence[str] = (),
        common_name: str = "server",
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        raw_san: bytes | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> Certificate:
        """A server's certificate; with no `dns`, `ips` or `raw_san` it has no subjectAltName.

        :param raw_san: the DER of the subjectAltName's value, however malformed.
        """
        return _issue(
            self.folder,
            _builder(
                common_name,
                self.name,
                key := ec.generate_private_key(ec.SECP256R1()),
                not_before or _BEGIN,
                not_after,
            ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False),
            key,
            self.key,
            dns,
            ips,
            raw_san,
            () if self.parent is None else (self.certificate,),
        )


def self_signed(
    folder: str | Path, *, dns: Sequence[str] = (), ips: Sequence[str] = ()
) -> Certificate:
    """A certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    builder = _builder("selfmade", "selfmade", key, _BEGIN, None)
    return _issue(folder, builder, key, key, dns, ips, None, ())


def san_der(*names: tuple[int, bytes]) -> bytes:
    """The DER of a subjectAltName of ``(context tag, content)`` pairs: 2 is DNS, 7 an address."""
    body = b"".join(bytes([0x80 | tag, len(content)]) + content for tag, content in names)
    return bytes([0x30, len(body)]) + body


def _issue(
    folder: Path,
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    dns: Sequence[str],
    ips: Sequence[str],
    raw_san: bytes | None,
    chain: Sequence[x509.Certificate],
) -> Certificate:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ip_address(address)) for address in ips]
    if raw_san is not None:
        san: x509.ExtensionType = x509.UnrecognizedExtension(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw_san
        )
        builder = builder.add_extension(san, critical=False)
    elif names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Certificate(folder, builder.sign(issuer_key, hashes.SHA256()), key, chain)


def _builder(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    not_before: datetime,
    not_after: datetime | None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after or datetime.now(UTC) + timedelta(days=30))
    )

"""Secrets in clear ↔ secrets as the store may hold them.

In: a key, from the environment or from a file that is made where there are no secrets yet, and
texts. Out: the same
texts, encrypted and authenticated (Fernet), and back. No secret and no key may reach a repr, an
error or a log. The library comes with the hub's extra, so it is imported only where it is used.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jetcamer.daemon.files import read_whole, sync_directory

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

__all__ = ["ENVIRONMENT_NAME", "Vault", "VaultError"]

#: Holds the key, or nothing: then it is in a file.
ENVIRONMENT_NAME = "JETCAMER_HUB_KEY"
_MAX_SIZE = 4096


class VaultError(Exception):
    """str() is one line for a person, without a secret in it."""


class Vault:
    """:param key: a Fernet key: 32 bytes in URL-safe base64; None: it is in the file `source`,
        once `ensure_key` has made it.
    :param source: what the texts of errors call the key.

    Raises VaultError for a key that is none.
    """

    def __init__(self, key: bytes | None, source: str = "the key") -> None:
        self._fernet = None if key is None else _fernet(key, source)
        self._source = source

    def __repr__(self) -> str:
        return f"<Vault with {self._source}>"

    @classmethod
    def load(cls, path: str, environ: Mapping[str, str]) -> Vault:
        """With the key of the environment, else with that of the file; where there is no file,
        without one as yet. Raises VaultError, also for a file that others may read."""
        given = environ.get(ENVIRONMENT_NAME, "")
        if given:
            return cls(given.strip().encode("ascii", "replace"), ENVIRONMENT_NAME)
        try:
            return cls(_read(path), path)
        except (OSError, ValueError) as error:
            raise _unusable(path, error) from None

    def ensure_key(self, *, secrets_exist: bool) -> None:
        """Make the file of the key where there is none. Raises VaultError where that cannot be,
        and where there are secrets that were sealed with the one that is gone."""
        if self._fernet is not None:
            return
        path = self._source
        if secrets_exist:
            raise VaultError(f"{path} is missing: put back the one from your backup")
        try:
            _create(path)
            self._fernet = _fernet(_read(path) or b"", path)
        except (OSError, ValueError) as error:
            raise _unusable(path, error) from None

    def seal(self, secret: str) -> bytes:
        if self._fernet is None:
            raise VaultError(f"{self._source} has not been made yet")
        try:
            text = secret.encode()
        except UnicodeEncodeError:  # which carries the secret
            raise VaultError("the secret is not text that UTF-8 can carry") from None
        return self._fernet.encrypt(text)

    def open(self, sealed: bytes) -> str:
        """What was sealed. Raises VaultError where that was not with this key."""
        if self._fernet is None:
            raise VaultError(f"{self._source} is missing: put back the one from your backup")
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed).decode()
        except (InvalidToken, UnicodeDecodeError):
            pass
        raise VaultError(
            f"{self._source} is not the key that the stored secrets were encrypted with"
        )


def _unusable(path: str, error: OSError | ValueError) -> VaultError:
    words = error.strerror if isinstance(error, OSError) else str(error)
    return VaultError(f"{path}: {words}")


def _fernet(key: bytes, source: str) -> Fernet:
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise VaultError(
            "the hub needs the package cryptography: pip install 'jetcamer[hub]'"
        ) from None
    try:
        return Fernet(key)
    except ValueError:
        pass
    raise VaultError(f"{source} holds no key: expected 32 bytes in URL-safe base64")


def _read(path: str) -> bytes | None:
    """The file's content, without white space around it; None where there is no file."""
    try:
        content, status = read_whole(path, _MAX_SIZE)
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise ValueError(
            f"others than its owner may read or change the hub's key (mode {mode:04o}): "
            f"chmod 600 {path}"
        )
    return content.strip()


def _create(path: str) -> None:
    """A new key under this name, whole or not at all, and never instead of another."""
    from cryptography.fernet import Fernet

    directory = os.path.dirname(path) or "."
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{path}.{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)  # whatever the umask took away
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):  # somebody else was first: that one counts
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    sync_directory(directory)

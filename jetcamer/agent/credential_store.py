"""The AWS credentials the agent was given to keep: one JSON file, mode 0600.

In: credentials, or the wish to forget them. Out: the credentials, or None. A reader sees the old
file or the new one, whole, whatever happens to the writer. Must never put a secret into a log
line, an exception or a ``repr``.

Forgetting has to mean it: where the file of the Go agent still lies in its old place, which is
not ours to delete, ``{"forgotten": true}`` in our place keeps it from being read again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

import msgspec
from twisted.logger import Logger

from jetcamer.daemon.files import Signature, read_whole, signature, sync_directory

log = Logger()

MAX_SIZE = 64 << 10
FILE_NAME = "aws-credentials.json"
LEGACY_PATH = "/etc/jetcamer/aws-credentials.json"


class StoredCredentials(msgspec.Struct, frozen=True):
    access_key_id: str
    secret_access_key: str
    region: str | None = None

    def __repr__(self) -> str:
        return f"StoredCredentials(<hidden>, region={self.region!r})"


class _Document(msgspec.Struct, frozen=True):
    """The file: the Go agent's three members and our own ``forgotten``."""

    access_key_id: str = msgspec.field(name="AccessKeyID", default="")
    secret_access_key: str = msgspec.field(name="SecretAccessKey", default="")
    region: str | None = msgspec.field(name="Region", default=None)
    forgotten: bool = False

    def __repr__(self) -> str:
        return "_Document(<hidden>)"


class CredentialStore:
    """Keeps credentials at `path`, and finds those that the Go agent left at `legacy_path`.

    One process writes. ``warnings`` holds what is wrong with the files at present, one line
    each; a line is logged once, when it appears.
    """

    def __init__(self, path: str, legacy_path: str | None) -> None:
        self.path = path
        self.legacy_path = legacy_path
        self._ours = _CredentialFile(path, private=True)
        # The Go agent ran as root; who moves to an unprivileged user lets its group read the file.
        self._legacy = None if legacy_path is None else _CredentialFile(legacy_path, private=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._ours.warnings + (self._legacy.warnings if self._legacy else ())

    def load(self) -> StoredCredentials | None:
        """The credentials as the files are now; costs a ``stat`` while they stay as they are.

        A file that cannot be read or understood counts as absent. Never raises.
        """
        document = self._ours.read()
        if document is None and self._legacy is not None:
            document = self._legacy.read()
        if document is None or document.forgotten:
            return None
        return StoredCredentials(
            access_key_id=document.access_key_id,
            secret_access_key=document.secret_access_key,
            region=document.region or None,
        )

    def save(self, credentials: StoredCredentials) -> None:
        """Replace what is stored. Raises ``OSError``, or ``ValueError`` for text that is none in
        UTF-8; what was stored before is then still there."""
        document = {
            "AccessKeyID": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Region": credentials.region or "",
        }
        try:
            content = msgspec.json.encode(document)
        except UnicodeEncodeError:  # which carries the whole text
            raise ValueError("credentials hold half of a surrogate pair") from None
        self._replace(content)

    def delete(self) -> bool:
        """Forget the credentials, the Go agent's too. Whether there was anything to forget.
        Raises ``OSError`` where that is not possible."""
        document = self._ours.read()
        present = os.path.lexists(self.path) and not (document and document.forgotten)
        present = present or self.load() is not None
        if self.legacy_path is not None and os.path.lexists(self.legacy_path):
            self._replace(b'{"forgotten": true}')
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
                sync_directory(os.path.dirname(self.path))
        self._sweep()
        return present

    def _replace(self, content: bytes) -> None:
        """A new file beside the old one takes its name, so that a symbolic link put in its place
        is replaced and never followed."""
        directory = os.path.dirname(self.path)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        temporary = os.path.join(directory, f"{self._prefix}{os.urandom(8).hex()}")
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with open(fd, "wb") as file:
                os.fchmod(fd, 0o600)  # whatever the umask took away
                file.write(content + b"\n")
                file.flush()
                os.fsync(fd)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        try:
            sync_directory(directory)
        except OSError as error:
            # They are stored, and would be lost only if the machine lost its power now.
            log.warn("{directory}: {error}", directory=directory, error=error.strerror)
        self._sweep()

    @property
    def _prefix(self) -> str:
        return f".{os.path.basename(self.path)}."

    def _sweep(self) -> None:
        """Remove what a writer that was killed left behind: it holds a secret."""
        directory = os.path.dirname(self.path)
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                if name.startswith(self._prefix):
                    os.unlink(os.path.join(directory, name))


class _CredentialFile:
    """One file, read again only when its ``stat`` says that it changed."""

    def __init__(self, path: str, *, private: bool) -> None:
        self.warnings: tuple[str, ...] = ()
        self._path = path
        self._forbidden = 0o077 if private else 0o007
        self._seen: Signature | int | None = errno.ENOENT
        self._document: _Document | None = None

    def read(self) -> _Document | None:
        seen: Signature | int | None
        try:
            seen = signature(os.stat(self._path))
        except OSError as error:
            seen = error.errno
        if seen != self._seen:
            self._seen = seen
            self._document, warnings = self._read()
            for words in warnings:
                if words not in self.warnings:
                    log.warn("{words}", words=words)
            self.warnings = tuple(warnings)
        return self._document

    def _read(self) -> tuple[_Document | None, list[str]]:
        try:
            data, status = read_whole(self._path, MAX_SIZE)
        except (FileNotFoundError, NotADirectoryError):
            return None, []
        except OSError as error:
            return None, [f"{self._path}: cannot be read: {error.strerror}"]
        self._seen = signature(status)
        warnings = []
        mode = stat.S_IMODE(status.st_mode)
        if mode & self._forbidden:
            warnings.append(
                f"{self._path}: others than its owner may read or change it "
                f"(mode {mode:04o}); it holds a secret: chmod 600"
            )
        try:
            document = msgspec.json.decode(data, type=_Document)
        except (ValueError, RecursionError) as error:
            # The decoder's words name types and places, never a value.
            words = str(error) if isinstance(error, msgspec.MsgspecError) else "not valid JSON"
            return None, [*warnings, f"{self._path}: is not used: {words}"]
        if not document.forgotten:
            if not document.access_key_id:
                return None, [*warnings, f"{self._path}: is not used: AccessKeyID is missing"]
            if not document.secret_access_key:
                return None, [*warnings, f"{self._path}: is not used: SecretAccessKey is missing"]
        return document, warnings

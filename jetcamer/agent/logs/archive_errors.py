"""Why the archive does not take what it is given. The text goes to whoever asked: one line, what is
wrong and what to do about it, no secret."""

from __future__ import annotations


class ArchiveOff(Exception):
    """There is no archive now: turned off, botocore not installed, or no credentials yet."""


class SpoolFull(Exception):
    """There is an archive, and no room left on disk for what waits to be uploaded."""

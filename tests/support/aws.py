"""An environment in which botocore finds nothing but what a test gives it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from unittest import mock

_loaders: list[Any] = []
_PREFIXES = ("AWS_", "BOTO", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT")

#: No files of the machine's owner, no metadata service, no proxy.
NOTHING = {
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def aws_environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without what botocore looks at but `more`."""
    kept = {name: os.environ[name] for name in os.environ if not _is_known(name)}
    return {**kept, **NOTHING, **(more or {})}


def without_aws(test: Any, more: Mapping[str, str] | None = None) -> None:
    """Let the rest of `test` run in `aws_environ`."""
    patch = mock.patch.dict(os.environ, aws_environ(more), clear=True)
    patch.start()
    test.addCleanup(patch.stop)


def share_botocore_data(test: Any) -> None:
    """Let all sessions of this process share what botocore reads from its own files, which takes
    it longer than a request."""
    import botocore.session

    if not _loaders:
        _loaders.append(botocore.session.create_loader())
    patch = mock.patch("botocore.session.create_loader", return_value=_loaders[0])
    patch.start()
    test.addCleanup(patch.stop)


def _is_known(name: str) -> bool:
    return name.upper().startswith(_PREFIXES)

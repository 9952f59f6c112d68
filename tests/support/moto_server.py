"""moto's S3 as a real process, which ends with the process that started it, however that ends.

    python -m tests.support.moto_server

Prints its port, answers until its standard input is closed. `shared_moto()` is one for all tests
of a process: they use bucket names of their own.
"""

from __future__ import annotations

import atexit
import itertools
import os
import subprocess
import sys
from typing import Any

from tests.support.tools import ROOT

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

_shared: list[MotoServer] = []
_numbers = itertools.count(1)


class MotoServer:
    """The driver's side.

    :param free_requests: after that many requests moto begins to look at signatures and
        permissions, as AWS does; None: never.
    """

    def __init__(self, free_requests: int | None = None) -> None:
        variables = {"PYTHONPATH": str(ROOT)}
        if free_requests is not None:
            variables["INITIAL_NO_AUTH_ACTION_COUNT"] = str(free_requests)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.moto_server"],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for the tests
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "moto's server did not start"
        self.port = int(line)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._client: Any = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def client(self, service: str = "s3", key_id: str = KEY_ID, secret: str = SECRET) -> Any:
        """A botocore client that goes straight to moto. It blocks."""
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            service,
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    @property
    def s3(self) -> Any:
        if self._client is None:
            self._client = self.client()
        return self._client

    def new_name(self) -> str:
        """A name that no bucket here has."""
        return f"bucket-{next(_numbers)}"

    def new_bucket(self) -> str:
        name = self.new_name()
        self.s3.create_bucket(Bucket=name)
        return name

    def buckets(self) -> set[str]:
        return {bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]}

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Everything in a bucket; nothing where there is no such bucket."""
        if bucket not in self.buckets():
            return {}
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {
            entry["Key"]: self.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            for page in pages
            for entry in page.get("Contents", [])
        }


def shared_moto() -> MotoServer:
    """Started with the first call; ends with this process."""
    if not _shared:
        _shared.append(MotoServer())
        atexit.register(_shared[0].stop)
    return _shared[0]


def main() -> None:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()

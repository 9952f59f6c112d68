"""An HTTP proxy for tests, run as a process: CONNECT, Basic credentials, and ways to refuse.

Prints ``listening <port>`` and then one line per request:
``<method> <target> authorization=<yes|no>``. Uses nothing but the standard library, so that it
shares no code with what it tests.

    python connect_proxy.py [--user NAME --password TEXT] [--refuse STATUS] [--bytewise]
                            [--silent] [--close] [--garbage]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http
import signal


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class ConnectProxy:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; a client that is rude or leaves is no event."""
        with contextlib.suppress(OSError, ValueError, EOFError, asyncio.LimitOverrunError):
            await self.converse(reader, writer)
        writer.close()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        given = headers.get("proxy-authorization")
        print(method, target, f"authorization={'no' if given is None else 'yes'}", flush=True)
        if self.options.silent:
            await reader.read()
        elif self.options.garbage:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif not self.options.close:
            await self.answer(method, target, given, reader, writer)

    async def answer(
        self,
        method: str,
        target: str,
        given: str | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        status = self.options.refuse or (200 if method == "CONNECT" else 405)
        if status == 200 and self.options.user is not None:
            wanted = f"{self.options.user}:{self.options.password}".encode()
            if given != "Basic " + base64.b64encode(wanted).decode():
                status = 407
        upstream = None
        if status == 200:
            host, _, port = target.rpartition(":")
            try:
                upstream = await asyncio.open_connection(host.strip("[]"), int(port))
            except OSError:
                status = 502
        phrase = "Connection established" if status == 200 else http.HTTPStatus(status).phrase
        extra = 'Proxy-Authenticate: Basic realm="test"\r\n' if status == 407 else ""
        answer = f"HTTP/1.1 {status} {phrase}\r\n{extra}X-Proxy: test\r\n\r\n".encode()
        if self.options.bytewise:
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
        else:
            writer.write(answer)
        if upstream is not None:
            await asyncio.gather(pump(reader, upstream[1]), pump(upstream[0], writer))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--refuse", type=int)
    for way in ("bytewise", "silent", "close", "garbage"):
        parser.add_argument(f"--{way}", action="store_true")
    server = await asyncio.start_server(ConnectProxy(parser.parse_args()).serve, "127.0.0.1", 0)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a word, as with SIGTERM
    asyncio.run(main())

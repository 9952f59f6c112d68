"""The configuration file: every member, every fault, and what happens when it is edited."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.config import (
    AgentConfig,
    ConfigError,
    ConfigSource,
    DeclaredCommand,
    decode_config,
    load_config,
    read_config,
)
from jetcamer.agent.live_config import LiveConfig
from tests.support.tools import ROOT

WHERE = "/etc/jetcamer/agent.config.json"
MEMBERS = AgentConfig.__struct_encode_fields__


def decode(document: Any) -> tuple[AgentConfig, list[str]]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_config(data, WHERE)


class Defaults(SynchronousTestCase):
    def test_documented_members_and_defaults(self) -> None:
        config, warnings = decode({})
        self.assertEqual(warnings, [])
        self.assertEqual(
            json.loads(msgspec.json.encode(config)),
            {
                "logPaths": [],
                "webListen": "127.0.0.1:9811",
                "instanceId": None,
                "siteId": "default",
                "env": "prod",
                "awsRegion": None,
                "collectorFlushIntervalSeconds": 10,
                "collectorMaxBatchSize": 500,
                "wsApiUrl": None,
                "wsSecret": None,
                "stateDir": "/var/lib/jetcamer",
                "wsCaFile": None,
                "wsServerName": None,
                "wsProxy": None,
                "wsReconnectJitter": 0.5,
                "metricsIntervalSeconds": 5,
                "metricsExtended": False,
                "heartbeatIntervalSeconds": 30,
                "credentialPollSeconds": 10,
                "commandTimeoutSeconds": 30,
                "commands": {},
                "s3Bucket": "cyber-agent-logs",
                "webAllowRemote": False,
                "webToken": None,
                "forwardOwnLogs": False,
                "archive": "auto",
                "logFormats": {},
                "logLinesPerSecond": 200,
                "spoolMaxBytes": 268435456,
            },
        )

    def test_the_examples_are_good(self) -> None:
        for name in ("agent.config.json", "agent.config.full.json"):
            _, warnings = decode((ROOT / "etc" / name).read_bytes())
            self.assertEqual(warnings, [], name)

    def test_the_full_example_is_full(self) -> None:
        full = json.loads((ROOT / "etc" / "agent.config.full.json").read_text("utf-8"))
        self.assertEqual(set(full), set(MEMBERS))

    def test_every_member_arrives(self) -> None:
        document = {
            "logPaths": ["/a", "/b*"],
            "webListen": "0.0.0.0:80",
            "instanceId": "ä-1",
            "siteId": "s",
            "env": "e",
            "awsRegion": "us-gov-west-1",
            "collectorFlushIntervalSeconds": 1.5,
            "collectorMaxBatchSize": 7,
            "wsApiUrl": "wss://[2001:db8::1]:8443/agent?x=1",
            "wsSecret": "ключ",
            "stateDir": "/tmp/x",
            "wsServerName": "hub.example",
            "wsProxy": "http://user:pass@proxy:3128",
            "wsReconnectJitter": 0,
            "metricsIntervalSeconds": 1,
            "metricsExtended": True,
            "heartbeatIntervalSeconds": 86400,
            "credentialPollSeconds": 2,
            "commandTimeoutSeconds": 3,
            "commands": {
                "restart": {
                    "argv": ["systemctl", "restart", "{unit}"],
                    "timeoutSeconds": 20,
                    "args": {"unit": "nginx(@[0-9]+)?"},
                }
            },
            "s3Bucket": "my.bucket-1",
            "webAllowRemote": True,
            "webToken": "0123456789abcdef",
            "forwardOwnLogs": True,
            "archive": "off",
            "logFormats": {"/var/log/*.log": r"(?P<ip>\S+) (?P<message>.*)"},
            "logLinesPerSecond": 0,
            "spoolMaxBytes": 1048576,
        }
        config, warnings = decode(document)
        self.assertEqual(warnings, [])
        self.assertEqual(
            config.commands["restart"],
            DeclaredCommand(("systemctl", "restart", "{unit}"), 20.0, {"unit": "nginx(@[0-9]+)?"}),
        )
        found = json.loads(msgspec.json.encode(config))
        del found["wsCaFile"]
        self.assertEqual(found, document)


class OldFiles(SynchronousTestCase):
    def test_members_of_the_go_agent_we_do_not_use(self) -> None:
        names = [
            "collectorUrl",
            "collectorApiKey",
            "securityEnabled",
            "securityBlockThreshold",
            "geoLiteDbPath",
            "geoliteCityPath",
            "firewallBackend",
            "awsNetworkAclId",
        ]
        self.assertEqual(decode({name: {"any": ["thing", None]} for name in names})[1], [])

    def test_an_empty_string_is_as_good_as_nothing(self) -> None:
        names = ["webListen", "instanceId", "siteId", "env", "awsRegion", "stateDir", "wsCaFile",
                 "wsServerName", "s3Bucket", "archive"]  # fmt: skip
        self.assertEqual(decode(dict.fromkeys(names, "")), (AgentConfig(), []))

    def test_null_is_not_set_in_any_member(self) -> None:
        self.assertEqual(decode(dict.fromkeys(MEMBERS)), (AgentConfig(), []))
        for name in MEMBERS:
            self.assertEqual(decode({name: None}), (AgentConfig(), []), name)
        config, _ = decode(
            {"commands": {"x": {"argv": ["a"], "timeoutSeconds": None, "args": None}}}
        )
        self.assertEqual(config.commands, {"x": DeclaredCommand(("a",))})

    def test_an_empty_secret_or_url_is_not_set_and_said_so(self) -> None:
        for name in ("wsSecret", "wsApiUrl", "wsProxy", "webToken"):
            config, warnings = decode({name: ""})
            self.assertEqual(config, AgentConfig())
            self.assertEqual(warnings, [f"{WHERE}: {name}: is empty and counts as not set"])

    def test_unknown_members_are_named_with_the_nearest(self) -> None:
        for name, nearest in [
            ("metricInterval", "metricsIntervalSeconds"),
            ("wsapiurl", "wsApiUrl"),
            ("logPath", "logPaths"),
            ("collectorFlushInterval", "collectorFlushIntervalSeconds"),
            ("collectorUrls", "collectorUrl"),
            ("zzz", None),
        ]:
            _, (warning,) = decode({name: 1})
            end = f"; did you mean {nearest}?" if nearest else ""
            self.assertEqual(warning, f"{WHERE}: {name}: unknown member, ignored{end}")

    def test_a_strange_name_stays_on_one_line(self) -> None:
        _, (warning,) = decode({"a\nb" + "x" * 100_000: 1})
        self.assertNotIn("\n", warning)
        self.assertLess(len(warning), 200)


class Faults(SynchronousTestCase):
    def refused(self, document: Any, words: str) -> None:
        with self.assertRaises(ConfigError) as caught:
            decode(document)
        self.assertEqual(str(caught.exception), f"{WHERE}: {words}")

    def test_json(self) -> None:
        for data, words in [
            (b"", "is empty; expected a JSON object, {} at least"),
            (b" \n", "is empty; expected a JSON object, {} at least"),
            (
                b'{\n  "env": "x"\n  "siteId": 1}',
                "not valid JSON: line 3 column 3: "
                "expected a comma, or the end of the object or array",
            ),
            (b'{"env": }', "not valid JSON: line 1 column 9: expected a value"),
            (
                b"{'env': 1}",
                "not valid JSON: line 1 column 2: expected a name in double quotes",
            ),
            (
                b'{"env" 1}',
                "not valid JSON: line 1 column 8: expected a colon after the member's name",
            ),
            (
                b"{} {}",
                "not valid JSON: line 1 column 4: "
                "expected nothing more after the end of the document",
            ),
            (
                b'{"env": "x}',
                "not valid JSON: line 1 column 9: a string that begins here has no end",
            ),
            (
                b'{"env": "x\n"}',
                "not valid JSON: line 1 column 11: "
                "a line break, tab or control character inside a string",
            ),
            (
                rb'{"logFormats": {"a": "\d"}}',
                "not valid JSON: line 1 column 23: "
                "a backslash that begins no escape; write \\\\ for a backslash",
            ),
            (
                rb'{"env": "\u12"}',
                "not valid JSON: line 1 column 11: \\u needs four hexadecimal digits after it",
            ),
            (b"[1]", "expected an object, got [1]"),
            (b"null", "expected an object, got null"),
            (b'"x"', 'expected an object, got "x"'),
            (b'{"env": "\xff"}', "not UTF-8 text: byte 10 is out of place"),
            (b'\xef\xbb\xbf{"env": "\xff"}', "not UTF-8 text: byte 13 is out of place"),
            (b'{"env": "a", "env": "b"}', "env: appears more than once"),
            (b'{"commands": {"x": {}, "x": {}}}', "x: appears more than once"),
            (b'{"metricsIntervalSeconds": NaN}', "not valid JSON: NaN"),
            (b'{"metricsIntervalSeconds": -Infinity}', "not valid JSON: -Infinity"),
            (b"[" * 100_000, "not valid JSON: nested too deeply"),
            (b'{"collectorMaxBatchSize": ' + b"9" * 5000 + b"}", "holds a number that is too long"),
        ]:
            self.refused(data, words)

    def test_a_byte_order_mark(self) -> None:
        config, warnings = decode(b'\xef\xbb\xbf{"env": "e"}')
        self.assertEqual((config.env, warnings), ("e", []))
        self.refused(
            b"\xef\xbb\xbf{]", "not valid JSON: line 1 column 2: expected a name in double quotes"
        )

    def test_types(self) -> None:
        for name, value, words in [
            ("metricsIntervalSeconds", "5", 'a number of seconds, at least 1, got "5"'),
            ("metricsIntervalSeconds", True, "a number of seconds, at least 1, got true"),
            ("collectorMaxBatchSize", 1.5, "a whole number, at least 1, got 1.5"),
            ("metricsExtended", 1, "true or false, got 1"),
            ("webAllowRemote", "true", 'true or false, got "true"'),
            ("forwardOwnLogs", {}, "true or false, got an object"),
            ("logPaths", "/var/log", 'an array of strings, got "/var/log"'),
            ("logPaths", ["/var/log", 5], 'an array of strings, got ["/var/log", 5]'),
            ("logPaths", [["/var/log"]], "an array of strings, got an array"),
            ("commands", [], "an object of declared commands, got []"),
            ("env", 5, "a string, got 5"),
            ("wsSecret", 5150, "a string, got a number"),
            ("wsSecret", ["hunter2"], "a string, got an array"),
            ("webToken", {"a": "hunter2"}, "a string, got an object"),
            ("archive", "yes", '"auto", "on" or "off", got "yes"'),
            ("archive", True, '"auto", "on" or "off", got true'),
            ("logFormats", [], "an object of regular expressions (strings), got []"),
            ("logLinesPerSecond", 1.5, "a whole number, at least 0, got 1.5"),
            ("spoolMaxBytes", "1G", 'a whole number of bytes, at least 1048576, got "1G"'),
            ("env", ["x"], 'a string, got ["x"]'),
        ]:
            self.refused({name: value}, f"{name}: expected {words}")

    def test_ranges(self) -> None:
        for name in MEMBERS:
            if name.endswith("Seconds"):
                low, high = "a number of seconds, at least 1", "a number of seconds, at most 86400"
                self.refused({name: 0}, f"{name}: expected {low}, got 0")
                self.refused({name: -5}, f"{name}: expected {low}, got -5")
                self.refused({name: 86401}, f"{name}: expected {high}, got 86401")
                self.refused(
                    b'{"%s": 1e999}' % name.encode(), f"{name}: expected {high}, got Infinity"
                )
        self.refused(
            {"wsReconnectJitter": 0.51},
            "wsReconnectJitter: expected a number, at most 0.5, got 0.51",
        )
        self.refused(
            {"wsReconnectJitter": -0.1},
            "wsReconnectJitter: expected a number, at least 0, got -0.1",
        )
        self.refused(
            {"collectorMaxBatchSize": 0},
            "collectorMaxBatchSize: expected a whole number, at least 1, got 0",
        )
        self.refused(
            {"collectorMaxBatchSize": 10**30},
            f"collectorMaxBatchSize: expected a whole number, at most 100000, got {10**30}",
        )
        lines, spool = "logLinesPerSecond: expected a whole number", "a whole number of bytes"
        self.refused({"logLinesPerSecond": -1}, f"{lines}, at least 0, got -1")
        self.refused({"logLinesPerSecond": 10001}, f"{lines}, at most 10000, got 10001")
        self.refused(
            {"spoolMaxBytes": 1048575},
            f"spoolMaxBytes: expected {spool}, at least 1048576, got 1048575",
        )
        self.refused(
            {"spoolMaxBytes": 1 << 41},
            f"spoolMaxBytes: expected {spool}, at most {1 << 40}, got {1 << 41}",
        )

    def test_values(self) -> None:
        for name, values in {
            "webListen": ["9811", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1",
                          "127.0.0.1:9811x", "example.org:80", "::1:9811", "[::1:9811", "[::g]:1",
                          "127.0.0.1:٣"],
            "wsApiUrl": ["hub.example", "https://hub.example/agent", "wss://", "wss:///agent",
                         "wss://user:pw@hub.example/", "wss://hub.example:0/",
                         "wss://hub.example:65536/", "wss://[::1/", "wss://a b/", "wss://a/#x",
                         "wss://a\n/", "auto"],
            "wsProxy": ["proxy:3128", "socks5://proxy", "http://", "http://user:pw@:3128"],
            "wsCaFile": ["ca.pem", "/does/not/exist", "/", "/dev/null", "/dev/zero"],
            "wsServerName": ["a b", "https://x", "a/b"],
            "webToken": ["fifteen-letters", "sixteen letters!", "sechzehn-Buchstäben"],
            "stateDir": ["state", "./x", "/a\0b"],
            "s3Bucket": ["ab", "Bucket", "a_b", "bucket/", "x" * 64],
            "awsRegion": ["eu west", "EU", "x.example.com", "a" * 33],
            "instanceId": ["a\nb", "x" * 257, "a\0b", "\ud800"],
            "siteId": ["a\tb"],
            "env": ["\x7f"],
            "logPaths": [[""], ["/a\0b"], ["\udfff"]],
        }.items():  # fmt: skip
            for value in values:
                with self.assertRaises(ConfigError) as caught:
                    decode({name: value})
                words = str(caught.exception)
                self.assertTrue(words.startswith(f"{WHERE}: {name}: "), words)
                self.assertNotIn("\n", words)
                self.assertNotIn("pw", words)

    def test_commands(self) -> None:
        for declared, words in [
            ({"x": 5}, "commands.x: expected an object, got a number"),
            ({"x": None}, "commands.x: expected an object, got null"),
            ({"x": {}}, "commands.x.argv: missing; expected an array of strings"),
            (
                {"x": {"argv": "rm -p hunter2"}},
                "commands.x.argv: expected an array of strings, got a string",
            ),
            ({"x": {"argv": ["a", 1]}}, "commands.x.argv[1]: expected a string, got a number"),
            (
                {"x": {"argv": ["a"], "arg": {}}},
                "commands.x.arg: unknown member; a command has argv, timeoutSeconds and args",
            ),
            (
                {"x": {"argv": ["a"], "timeoutSeconds": "5"}},
                "commands.x.timeoutSeconds: expected a number of seconds, got a string",
            ),
            (
                {"x": {"argv": ["a"], "timeoutSeconds": True}},
                "commands.x.timeoutSeconds: expected a number of seconds, got true or false",
            ),
            (
                {"x": {"argv": ["a"], "args": []}},
                "commands.x.args: expected an object of patterns (strings), got an array",
            ),
            (
                {"x": {"argv": ["a"], "args": {"b": 1}}},
                "commands.x.args.b: expected a pattern (a string), got a number",
            ),
        ]:
            self.refused({"commands": declared}, words)
        for declared, member in [
            ({"ping": {"argv": ["a"]}}, "commands.ping"),
            ({"get_status": {"argv": ["a"]}}, "commands.get_status"),
            ({"Ping": {"argv": ["a"]}}, "commands"),
            ({"a\nb": {"argv": ["a"]}}, "commands"),
            ({"x" * 65: {"argv": ["a"]}}, "commands"),
            ({"x": {"argv": []}}, "commands.x.argv"),
            ({"x": {"argv": ["a", "{b}"], "args": {"b": "("}}}, "commands.x.args.b"),
            ({"x": {"argv": ["a"], "timeoutSeconds": 0}}, "commands.x.timeoutSeconds"),
            ({"x": {"argv": ["a"], "timeoutSeconds": 10**400}}, "commands.x.timeoutSeconds"),
            ({"x": {"argv": ["a"], "timeoutSeconds": -(10**400)}}, "commands.x.timeoutSeconds"),
        ]:
            with self.assertRaises(ConfigError) as caught:
                decode({"commands": declared})
            self.assertTrue(str(caught.exception).startswith(f"{WHERE}: {member}: "), declared)
            self.assertNotIn("\n", str(caught.exception))

    def test_log_formats(self) -> None:
        for formats, words in [
            (
                {"/var/log/x": "("},
                'logFormats."/var/log/x": not a regular expression: '
                "missing ), unterminated subpattern at position 0",
            ),
            (
                {"/x": "a"},
                'logFormats."/x": has no named group; '
                r"name what is to be kept, as in (?P<ip>\S+)",
            ),
            (
                {"/good": "(?P<ip>.)", "a\nb": 5},
                r'logFormats."a\nb": expected a regular expression (a string), got a number',
            ),
            (
                {"/x": None},
                'logFormats."/x": expected a regular expression (a string), got null',
            ),
            ({"": "(?P<ip>.)"}, "logFormats: holds an empty path"),
            ({"/x": "(?P<ip>.)" + "a" * 4096}, 'logFormats."/x": longer than 4096 characters'),
        ]:
            self.refused({"logFormats": formats}, words)
        with self.assertRaises(ConfigError) as caught:
            decode({"logFormats": {"/x": "(?P<x>(a+)+)$"}})
        self.assertTrue(
            str(caught.exception).startswith(f'{WHERE}: logFormats."/x": takes too long on some')
        )
        self.assertEqual(caught.exception.member, 'logFormats."/x"')

    def test_no_words_of_a_library(self) -> None:
        """Each member with a value of each wrong type."""
        foreign = re.compile(r"`|\b(str|int|float|bool|dict|list|tuple|array of str)\b|Expect|\$\.")
        for name in MEMBERS:
            for value in (5, 1.5, True, "x y", [5], ["x", {}], {"x": 5}, {"x": {"y": 1}}):
                try:
                    decode({name: value})
                except ConfigError as error:
                    member = "webToken" if (name, value) == ("webAllowRemote", True) else name
                    self.assertTrue(str(error).startswith(f"{WHERE}: {member}"), str(error))
                    self.assertNotRegex(str(error), foreign)


class WebListen(SynchronousTestCase):
    def test_addresses(self) -> None:
        for text, address in [
            ("127.0.0.1:9811", ("127.0.0.1", 9811)),
            ("127.8.0.1:0", ("127.8.0.1", 0)),
            ("[::1]:9811", ("::1", 9811)),
            ("localhost:1", ("127.0.0.1", 1)),
        ]:
            self.assertEqual(decode({"webListen": text})[0].listen_address(), address)

    def test_beyond_loopback_needs_permission_and_a_token(self) -> None:
        for text, address in [
            ("0.0.0.0:1", ("0.0.0.0", 1)),
            (":1", ("", 1)),
            ("[::]:1", ("::", 1)),
            ("10.0.0.1:1", ("10.0.0.1", 1)),
            ("12.0.0.1:1", ("12.0.0.1", 1)),
            ("[::ffff:127.0.0.1]:1", ("::ffff:127.0.0.1", 1)),
            ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ]:
            with self.assertRaises(ConfigError) as caught:
                decode({"webListen": text, "webToken": "x" * 16})
            self.assertEqual(caught.exception.member, "webListen")
            with self.assertRaises(ConfigError) as caught:
                decode({"webListen": text, "webAllowRemote": True})
            self.assertEqual(caught.exception.member, "webToken")
            config, _ = decode({"webListen": text, "webAllowRemote": True, "webToken": "x" * 16})
            self.assertEqual(config.listen_address(), address)


class Encryption(SynchronousTestCase):
    def test_ws_is_for_this_machine(self) -> None:
        for url in ("wss://a/", "WSS://a", "ws://127.0.0.1:80/", "ws://localhost/", "ws://[::1]/"):
            self.assertEqual(decode({"wsApiUrl": url})[1], [], url)
        for url in ("ws://a/", "ws://10.0.0.1/", "ws://[::2]/", "ws://localhost.example/"):
            self.assertEqual(
                decode({"wsApiUrl": url})[1],
                [f"{WHERE}: wsApiUrl: ws:// to another machine is not encrypted; use wss://"],
                url,
            )


class Secrets(SynchronousTestCase):
    def test_no_repr_shows_one(self) -> None:
        config = AgentConfig(
            ws_secret="hunter2", web_token="hunter2", ws_proxy="http://user:hunter2@proxy:1"
        )
        for text in (repr(config), str(config), f"{config}", repr([config])):
            self.assertNotIn("hunter2", text)
            self.assertIn("proxy:1", text)
        self.assertIn("ws_secret=None", repr(AgentConfig()))


class FileTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "agent.config.json"

    def write(self, document: Any, mode: int = 0o640) -> str:
        self.path.write_text(json.dumps(document))
        self.path.chmod(mode)
        return str(self.path)


class Files(FileTestCase):
    def refused(self, path: str, words: str) -> None:
        with self.assertRaises(ConfigError) as caught:
            read_config(path)
        self.assertEqual(str(caught.exception), f"{path}: {words}")

    def test_precedence(self) -> None:
        for name in ("option", "environment", "default"):
            (self.folder / name).write_text(json.dumps({"siteId": name}))
        option, environment, default = (
            str(self.folder / name) for name in ("option", "environment", "default")
        )
        named = {"JETCAMER_AGENT_CONFIG": environment}
        for path, environ, expected in [
            (option, named, "option"),
            (None, named, "environment"),
            (None, {"JETCAMER_AGENT_CONFIG": ""}, "default"),
            (None, {}, "default"),
        ]:
            config, source = load_config(path, environ, default_path=default)
            self.assertEqual(config.site_id, expected)
            self.assertEqual(source.path, str(self.folder / expected))

    def test_only_the_default_file_may_be_missing(self) -> None:
        missing = str(self.path)
        config, source = load_config(None, {}, default_path=missing)
        self.assertEqual(config, AgentConfig())
        self.assertEqual(source, ConfigSource(path=None, watched=missing))
        for path, environ in [(missing, {}), (None, {"JETCAMER_AGENT_CONFIG": missing})]:
            with self.assertRaises(ConfigError) as caught:
                load_config(path, environ, default_path="/also/missing")
            self.assertEqual(str(caught.exception), f"{missing}: no such file")

    def test_a_relative_path_is_remembered_absolute(self) -> None:
        self.write({})
        _, source = load_config(os.path.relpath(self.path), {})
        self.assertEqual(source.path, str(self.path))

    def test_what_is_no_file(self) -> None:
        os.mkfifo(self.folder / "fifo")
        self.refused(str(self.folder), "cannot be read: Is a directory")
        self.refused(str(self.folder / "fifo"), "cannot be read: Not a regular file")
        self.refused("/dev/zero", "cannot be read: Not a regular file")
        (self.folder / "loop").symlink_to("loop")
        self.refused(str(self.folder / "loop"), "cannot be read: Too many levels of symbolic links")
        self.write({"siteId": "x" * (1 << 20)})
        self.refused(str(self.path), "cannot be read: Larger than 1048576 bytes")

    def test_a_default_file_that_cannot_be_looked_at(self) -> None:
        self.write({})
        below = str(self.path / "agent.config.json")
        with self.assertRaises(ConfigError) as caught:
            load_config(None, {}, default_path=below)
        self.assertEqual(str(caught.exception), f"{below}: cannot be read: Not a directory")

    def test_a_name_of_two_lines(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            read_config(str(self.folder / "a\nb\udcff"))
        self.assertTrue(str(caught.exception).endswith("a\ufffdb\ufffd: no such file"))

    def test_unreadable(self) -> None:
        path = self.write({}, 0o000)
        if os.access(path, os.R_OK):  # root reads everything

            def no(*_: Any, **__: Any) -> int:
                raise PermissionError(13, "Permission denied", path)

            self.patch(os, "open", no)
        self.refused(path, "cannot be read: Permission denied")

    def test_modes(self) -> None:
        secret = {"wsSecret": "x"}
        for document, mode, count in [
            ({}, 0o644, 0),
            ({"wsProxy": "http://proxy:1"}, 0o644, 0),
            (secret, 0o640, 0),
            (secret, 0o600, 0),
            (secret, 0o644, 1),
            ({"webToken": "x" * 16}, 0o644, 1),
            ({"wsProxy": "http://u:p@proxy:1"}, 0o644, 1),
            ({}, 0o666, 1),
            (secret, 0o666, 2),
        ]:
            path = self.write(document, mode)
            _, source = read_config(path)
            self.assertEqual(len(source.warnings), count, (document, oct(mode), source.warnings))
            for warning in source.warnings:
                self.assertTrue(warning.startswith(f"{path}: "))
                self.assertIn(f"(mode {mode:04o})", warning)


class Live(FileTestCase):
    """The same file, edited while the agent runs."""

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "jetcamer.agent.live_config":
            self.logged.append(event["log_format"].format(**event))

    def live(self) -> LiveConfig:
        return LiveConfig(*load_config(None, {}, default_path=str(self.path)))

    def replace(self, document: Any) -> None:
        """As an editor does it: a new file takes the name."""
        new = self.folder / "new"
        new.touch(mode=0o600)
        new.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        new.replace(self.path)

    def test_a_file_that_stays_is_read_once(self) -> None:
        self.write({"wsSecret": "a"})
        live = self.live()

        def no(*_: Any) -> None:
            raise AssertionError("read again")

        self.patch(os, "open", no)
        for _ in range(3):
            self.assertEqual(live.current().ws_secret, "a")

    def test_an_edit_in_place_or_by_replacement(self) -> None:
        self.write({"wsSecret": "a"})
        live = self.live()
        self.replace({"wsSecret": "b", "wsApiUrl": "wss://x/", "instanceId": "n"})
        config = live.current()
        self.assertEqual(
            (config.ws_secret, config.ws_api_url, config.instance_id), ("b", "wss://x/", "n")
        )
        self.write({"wsSecret": "cc"})
        self.assertEqual(live.current().ws_secret, "cc")
        self.assertEqual(self.logged, [])

    def test_a_default_file_that_appears(self) -> None:
        live = self.live()
        self.assertEqual(live.current(), AgentConfig())
        self.write({"wsSecret": "a"})
        self.assertEqual(live.current().ws_secret, "a")

    def test_a_broken_edit_changes_nothing_and_is_said_once(self) -> None:
        self.write({"wsSecret": "a"})
        live = self.live()
        self.replace(b'{"wsSecret": "hunter2"')
        for _ in range(3):
            self.assertEqual(live.current().ws_secret, "a")
        self.path.unlink()
        for _ in range(3):
            self.assertEqual(live.current().ws_secret, "a")
        self.assertEqual(len(self.logged), 2)
        self.assertIn("line 1 column 23", self.logged[0])
        self.assertIn("no such file", self.logged[1])
        self.assertNotIn("hunter2", "".join(self.logged))
        self.write({"wsSecret": "b"})
        self.assertEqual(live.current().ws_secret, "b")
        self.assertEqual(len(self.logged), 2)

    def test_the_members_of_logs_need_a_restart(self) -> None:
        self.write({})
        live = self.live()
        self.replace({"archive": "on", "logFormats": {"/x": "(?P<a>.)"}, "logLinesPerSecond": 1})
        live.current()
        (words,) = self.logged
        self.assertIn("archive, logFormats, logLinesPerSecond changed", words)

    def test_other_members_need_a_restart(self) -> None:
        self.write({"wsSecret": "a"})
        live = self.live()
        self.replace({"wsSecret": "b", "siteId": "x", "metricsIntervalSeconds": 9})
        live.current()
        self.replace({"wsSecret": "c", "siteId": "y", "metricsIntervalSeconds": 9})
        live.current()
        self.assertEqual(
            self.logged,
            [
                f"{self.path}: siteId, metricsIntervalSeconds changed; "
                "this takes effect when the agent is restarted"
            ],
        )

    def test_a_warning_is_given_once(self) -> None:
        self.write({"zzz": 1})
        live = self.live()
        self.replace({"zzz": 2, "yyy": 1})
        live.current()
        self.replace({"zzz": 3, "yyy": 1})
        live.current()
        self.assertEqual(self.logged, [f"{self.path}: yyy: unknown member, ignored"])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()))  # surrogates, too
    | st.sampled_from(["127.0.0.1:0", "[::1]:1", "wss://a", "http://a:1", "/tmp", "/a\0", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["argv", "args", "timeoutSeconds", "x", "ping"]) | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
DECLARED = st.dictionaries(
    st.from_regex(r"[a-z]{1,3}", fullmatch=True),
    st.fixed_dictionaries(
        {"argv": st.lists(st.text(max_size=4) | st.just("{a}"), max_size=3)},
        optional={
            "args": st.dictionaries(st.sampled_from(["a", "b", ""]), st.text(max_size=6)),
            "timeoutSeconds": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        },
    ),
    max_size=2,
)


class Imports(SynchronousTestCase):
    def test_patterns_are_checked_by_a_module_imported_for_them(self) -> None:
        code = (
            "import sys; from jetcamer.agent.config import decode_config as d\n"
            "for formats in ('{}', '{\"/x\": \"(?P<a>.)\"}'):\n"
            "    d(b'{\"logFormats\": %s}' % formats.encode(), 'x')\n"
            "    print('jetcamer.agent.logs.pattern_check' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout.split(), ["False", "True"])


class AnyValue(SynchronousTestCase):
    """Whatever stands in the file: a valid configuration, or one line."""

    def check(self, data: bytes) -> None:
        try:
            config, warnings = decode(data)
        except ConfigError as error:
            texts = [str(error)]
        else:
            self.assertIsInstance(config.listen_address(), tuple)
            repr(config)
            texts = warnings
            again, _ = decode(msgspec.json.encode(config))
            self.assertEqual(again, config)
        for text in texts:
            self.assertEqual(len(text.splitlines()), 1)
            self.assertTrue(text.startswith(WHERE))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.sampled_from(MEMBERS), VALUES, min_size=1, max_size=3))
    @example({"commands": {"a": {"argv": ["a"], "args": {"\x00": "x"}}}})
    def test_in_any_member(self, document: dict[str, Any]) -> None:
        self.check(json.dumps(document).encode())

    @settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
    @given(DECLARED)
    def test_any_command(self, commands: dict[str, Any]) -> None:
        self.check(json.dumps({"commands": commands}).encode())

    @settings(max_examples=75, deadline=None)
    @given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
    def test_any_bytes(self, data: bytes) -> None:
        self.check(data)

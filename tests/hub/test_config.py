"""The hub's configuration: what it may hold, and one line for what it may not."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.config import ConfigError, HubConfig, load_config
from tests.support.tools import ROOT


class ConfigTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def load(self, document: Any, mode: int = 0o600) -> tuple[HubConfig, tuple[str, ...]]:
        text = document if isinstance(document, str) else json.dumps(document)
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path, mode)
        config, source = load_config(self.path, {})
        return config, source.warnings

    def fault(self, document: Any) -> str:
        error = self.assertRaises(ConfigError, self.load, document)
        prefix = f"{self.path}: "
        self.assertTrue(str(error).startswith(prefix))
        return str(error).removeprefix(prefix)


class AcceptedTests(ConfigTestCase):
    def test_nothing(self) -> None:
        """Without a file, and with an empty one, everything has its default."""
        config, source = load_config(None, {}, default_path=self.path)
        self.assertEqual((config, source.path), (HubConfig(), None))
        self.assertEqual(self.load({}), (HubConfig(), ()))

    def test_examples(self) -> None:
        """The shipped ones are right, and the full one names every member with its default."""
        for name in ("hub.config.json", "hub.config.full.json"):
            text = (ROOT / "etc" / name).read_text("utf-8")
            config, warnings = self.load(text)
            self.assertEqual(warnings, ())
        document = json.loads(text)
        self.assertEqual(set(document), set(HubConfig.__struct_encode_fields__))
        own = {"listen", "api_names", "agent_url", "trusted_proxies"}
        for name in set(HubConfig.__struct_fields__) - own:
            self.assertEqual(getattr(config, name), getattr(HubConfig(), name), name)

    def test_one_listener_as_a_string(self) -> None:
        self.assertEqual(self.load({"listen": "tcp:1"})[0].listen, ("tcp:1",))

    def test_named_by_the_environment(self) -> None:
        self.load({"stateDir": "/x"})
        config, _ = load_config(None, {"JETCAMER_HUB_CONFIG": self.path}, default_path="/none")
        self.assertEqual(
            (config.database_path, config.key_path, config.backup_dir),
            ("/x/hub.sqlite3", "/x/secret.key", "/x/backups"),
        )

    def test_what_goes_together(self) -> None:
        self.load({"pingIntervalSeconds": 0, "idleTimeoutSeconds": 5})
        self.load({"pingIntervalSeconds": 80, "idleTimeoutSeconds": 80.5})
        endpoints = ["tcp:0", "tcp:65535:backlog=99999", "unix:/a:mode=70000", "fd:99999"]
        self.load({"listen": endpoints, "apiListen": "tcp6:port=8080:interface=\\:\\:"})

    def test_warnings(self) -> None:
        _, warnings = self.load({"listens": [], "legacySecret": "x" * 16}, 0o644)
        self.assertEqual(
            warnings,
            (
                f"{self.path}: listens: unknown member, ignored; did you mean listen?",
                f"{self.path}: holds a secret and everybody may read it (mode 0644)",
            ),
        )


class RefusedTests(ConfigTestCase):
    def test_faults(self) -> None:
        for document, words in (
            ("{", "not valid JSON: line 1 column 2: expected a name in double quotes"),
            ({"listen": []}, "listen: is empty: nobody could connect"),
            ({"listen": 443}, "listen: expected an array of endpoints (strings), got 443"),
            (
                {"listen": ["443"]},
                'listen: expected an endpoint, as in "tcp:9810:interface=127.0.0.1"',
            ),
            ({"store": "mysql"}, 'store: expected "sqlite" or "off", got "mysql"'),
            ({"stateDir": "var"}, "stateDir: expected an absolute path"),
            ({"trustedProxies": ["all"]}, "trustedProxies: expected IP addresses and networks"),
            (
                {"apiNames": ["https://hub"]},
                "apiNames: expected host names, without port and scheme",
            ),
            ({"legacySecret": "short"}, "legacySecret: expected at least 16 characters"),
            ({"legacySecret": 12345678}, "legacySecret: expected a string, got a number"),
            (
                {"messagesPerSecond": 0},
                "messagesPerSecond: expected a number, at least 0.1, got 0",
            ),
            ({"idleTimeoutSeconds": True}, None),
            (
                {"idleTimeoutSeconds": 25},
                "idleTimeoutSeconds: must be more than pingIntervalSeconds (25), unless that is 0",
            ),
            (
                {"pingIntervalSeconds": 80},
                "idleTimeoutSeconds: must be more than pingIntervalSeconds (80), unless that is 0",
            ),
            (
                {"listen": ["tcp:1", "tcp:99999"]},
                'listen: "tcp:99999": a port is a number from 0 to 65535',
            ),
            (
                {"apiListen": "tcp6:interface=\\:\\:1:port=70000"},
                'apiListen: "tcp6:interface=\\\\:\\\\:1:port=70000":'
                " a port is a number from 0 to 65535",
            ),
            ({"listen": "tcp:http"}, 'listen: "tcp:http": a port is a number from 0 to 65535'),
            (
                {"apiListen": "ssl:-1:privateKey=x"},
                'apiListen: "ssl:-1:privateKey=x": a port is a number from 0 to 65535',
            ),
            ({"agentUrl": "https://hub.example.com/agent"}, None),
            ({"maxMessageBytes": 1 << 30}, None),
        ):
            found = self.fault(document)
            if words is not None:
                self.assertEqual(found, words)
            self.assertNotIn("\n", found)

    def test_a_named_file_must_be_there(self) -> None:
        error = self.assertRaises(ConfigError, load_config, "/none/hub.json", {})
        self.assertEqual(str(error), "/none/hub.json: no such file")

    def test_no_repr_shows_the_secret(self) -> None:
        config, _ = self.load({"legacySecret": "a-secret-nobody-may-see"})
        self.assertNotIn("nobody", repr(config))
        self.assertIn("legacy_secret=<hidden>", repr(config))

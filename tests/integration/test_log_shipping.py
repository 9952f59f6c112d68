"""Log lines from real files through a real agent to a real server and moto's S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from tests.support.case import ProcessCase
from tests.support.node_peer import NodePeer
from tests.support.shipping import MACHINE_ID, Shipping, access_line
from tests.support.twistd import http


class ShippingCase(ProcessCase):
    timeout = 120

    def ship(self, *logs: str, **config: Any) -> Shipping:
        shipping = Shipping(Path(self.mktemp()).absolute(), *(logs or ("*.log",)), **config)
        self.addCleanup(shipping.stop)
        return shipping


class EndToEndTests(ShippingCase):
    async def test_lines_reach_the_server_and_the_bucket_and_all_are_counted(self) -> None:
        peer = NodePeer(reactor, {"web-1": "secret"})
        await peer.start()
        self.addCleanup(peer.stop)
        shipping = self.ship(
            wsApiUrl=peer.url,
            wsSecret="secret",
            instanceId="web-1",
            metricsExtended=True,
            metricsIntervalSeconds=1,
        )
        file = shipping.logs / "access.log"
        file.write_text(access_line("before-we-came"))
        await shipping.start()
        await shipping.following("access.log")
        await peer.message("auth")
        with file.open("a", encoding="utf-8") as log:
            log.writelines([access_line("a"), "kein Format: ü\n", access_line("b")])
        message = await peer.message("log")
        self.assertEqual(message["payload"]["source"], str(file))
        self.assertEqual(message["payload"]["message"], access_line("a").rstrip())
        self.assertEqual(message["payload"]["event"]["path"], "/a")
        status = await shipping.archived(3)
        totals = {"sent": 3, "suppressed": 0, "archived": 3, "unmatched": 1, "missedBytes": 0}
        self.assertLessEqual(totals.items(), status["totals"].items())
        self.assertEqual(status["archive"]["state"], "on")
        objects = await shipping.objects()
        self.assertEqual(await shipping.paths(), ["a", "b", "kein Format: ü"])
        for key in objects:
            self.assertRegex(
                key, rf"^{MACHINE_ID}/\d{{4}}-\d\d-\d\d/\d{{6}}-[0-9a-f]{{12}}-\d+-\d+\.ndjson$"
            )
        (event,) = [event for events in objects.values() for event in events if "raw" in event]
        self.assertEqual(event, {"raw": "kein Format: ü", "source": "access.log"})
        metrics = await peer.message("metrics")
        self.assertIn("archived", metrics["payload"]["logs"])
        # The local interface takes batches, and validates.
        code, answer = await http(
            reactor,
            shipping.port,
            "POST",
            "/internal/batch",
            {"env": "test", "events": [{"ip": "192.0.2.1", "path": "/x"}]},
        )
        self.assertEqual((code, answer), (200, {"status": "ok", "uploaded": 1}))
        more = await shipping.objects()
        (events,) = [more[key] for key in more if key not in objects]
        self.assertEqual(events, [{"ip": "192.0.2.1", "path": "/x", "env": "test"}])
        code, answer = await http(reactor, shipping.port, "GET", "/internal/s3-validate")
        self.assertEqual(code, 200, answer)
        self.assertEqual(answer["machineId"], MACHINE_ID)
        self.assertEqual(answer["credentialsType"], "environment-variables")

    async def test_a_restart_goes_on_where_it_was_also_after_a_rotation(self) -> None:
        shipping = self.ship()
        file = shipping.logs / "access.log"
        file.touch()
        await shipping.start()
        await shipping.following("access.log")
        file.write_text(access_line("1"))
        await shipping.archived(1)
        await shipping.terminate()
        self.assertEqual(shipping.agent.exit_code, 0)
        with file.open("a") as log:
            log.write(access_line("2"))
        file.rename(shipping.logs / "access.log.1")
        file.write_text(access_line("3"))
        await shipping.start()
        await shipping.archived(3)
        self.assertEqual(await shipping.paths(), ["1", "2", "3"])

    async def test_what_s3_does_not_take_is_taken_later(self) -> None:
        shipping = self.ship()
        file = shipping.logs / "access.log"
        file.touch()
        shipping.proxy.mode = "500"
        await shipping.start()
        await shipping.following("access.log")
        file.write_text("".join(access_line(str(n)) for n in range(1200)))
        status = await shipping.until(lambda status: status["archive"]["state"] == "backing off")
        self.assertIn("InternalError", json.dumps(status["archive"]["lastError"]))
        await shipping.kill()
        shipping.proxy.mode = "ok"
        shipping.proxy.faults[:] = ["lost", "cut", "500"]
        await shipping.start()
        await shipping.archived(1200)
        self.assertEqual(await shipping.paths(), sorted(map(str, range(1200))))

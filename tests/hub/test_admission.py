"""Who may come in: so many a second, nobody who guesses, and whose address counts."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import admission
from jetcamer.hub.admission import UNIX, Admission, ClientAddress, Offenders, plain_address


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)

    def test_so_many_a_second(self) -> None:
        door = Admission(self.clock, 5.0)
        for _ in range(3):
            answers = [door.admit() for _ in range(8)]
            self.assertEqual(answers[:5], [None] * 5)
            self.assertNotIn(None, answers[5:])
            self.clock.advance(1.0)

    def test_steady(self) -> None:
        door = Admission(self.clock, 10.0)
        for _ in range(100):
            self.assertIsNone(door.admit())
            self.clock.advance(0.125)

    def test_nothing_is_saved_up(self) -> None:
        """A quiet hour is no reason to take thousands at once."""
        door = Admission(self.clock, 5.0)
        self.clock.advance(3600)
        answers = [door.admit() for _ in range(20)]
        self.assertEqual(answers.count(None), 5)

    def test_spread(self) -> None:
        """A fleet is asked in over as many seconds as it needs, so many in each of them."""
        door = Admission(self.clock, 500.0, spread=lambda: 0.0)
        waits = [door.admit() for _ in range(5000)]
        self.assertEqual(waits.count(None), 500)
        away = sorted(wait for wait in waits if wait is not None)
        self.assertGreater(away[0], 1.0)
        self.assertLess(away[-1], 10.1)
        for second in range(1, 10):
            self.assertAlmostEqual(sum(second <= wait < second + 1 for wait in away), 500, delta=1)

    def test_all_come_in(self) -> None:
        """Each comes again when it was told to, and none is sent away for ever."""
        door = Admission(self.clock, 50.0)
        due = {number: self.clock.seconds() for number in range(1000)}
        came = 0
        while due:
            now = self.clock.seconds()
            for number in [number for number, when in due.items() if when <= now]:
                wait = door.admit()
                if wait is None:
                    del due[number]
                    came += 1
                else:
                    due[number] = now + wait
            self.clock.advance(0.1)
        self.assertEqual(came, 1000)
        self.assertLess(self.clock.seconds(), 1000 + 2 * 1000 / 50)

    def test_longest_wait(self) -> None:
        door = Admission(self.clock, 0.5, spread=lambda: 1.0)
        waits = [door.admit() or 0.0 for _ in range(1000)]
        self.assertEqual(max(waits), 301.0)

    def test_clock_set_back(self) -> None:
        door = Admission(self.clock, 5.0)
        self.clock.rightNow -= 500
        self.assertEqual([door.admit() for _ in range(5)], [None] * 5)
        self.clock.advance(1)
        self.assertIsNone(door.admit())

    def test_nobody(self) -> None:
        self.assertRaises(ValueError, Admission, self.clock, 0.0)


class OffendersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.offenders = Offenders(self.clock)

    def offend(self, times: int, address: str = "192.0.2.1") -> float:
        for _ in range(times):
            self.offenders.offended(address)
        return self.offenders.banned_for(address)

    def test_ten_in_a_minute(self) -> None:
        self.assertEqual(self.offend(9), 0.0)
        self.assertEqual(self.offend(1), 30.0)
        self.assertEqual(self.offenders.banned_for("192.0.2.2"), 0.0)
        self.clock.advance(29)
        self.assertEqual(self.offenders.banned_for("192.0.2.1"), 1.0)
        self.clock.advance(1)
        self.assertEqual(self.offenders.banned_for("192.0.2.1"), 0.0)

    def test_slower(self) -> None:
        """Nine in any minute are no attack: an agent with a wrong secret comes back that often."""
        for _ in range(50):
            self.assertEqual(self.offend(1), 0.0)
            self.clock.advance(6.7)

    def test_at_the_end_of_a_minute(self) -> None:
        self.offend(5)
        self.clock.advance(59.5)
        self.assertEqual(self.offend(5), 30.0)

    def test_growing(self) -> None:
        """Twice as long each time, to 10 minutes; the number of bans never overflows."""
        bans = []
        for _ in range(10):
            bans.append(self.offend(10))
            self.clock.advance(bans[-1])
        self.assertEqual(bans, [30, 60, 120, 240, 480, 600, 600, 600, 600, 600])

    def test_anew(self) -> None:
        """Quiet for twice as long as the ban was, and it begins anew; not where one offence came
        in that time, and never before a minute is over."""
        self.offend(10)
        self.clock.advance(30 + 59)
        self.assertEqual(self.offend(10), 60.0)
        self.clock.advance(60 + 100)
        self.offend(1)
        self.clock.advance(119)
        self.assertEqual(self.offend(10), 120.0)
        self.clock.advance(120 + 241)
        self.assertEqual(self.offend(10), 30.0)

    def test_through_a_ban(self) -> None:
        """Who goes on over connections that were open is banned for up to an hour."""
        bans = [self.offend(10) for _ in range(9)]
        self.assertEqual(bans, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600])

    def test_known_agents(self) -> None:
        """One that is known, and comes again and again, counts once a minute."""
        for _ in range(100):
            for agent in range(9):
                self.offenders.offended("192.0.2.1", f"agent-{agent}", retired=True)
            self.clock.advance(7)
            self.assertEqual(self.offenders.banned_for("192.0.2.1"), 0.0)
        self.clock.advance(60)
        for agent in range(10):
            self.assertEqual(self.offenders.banned_for("192.0.2.1"), 0.0)
            self.offenders.offended("192.0.2.1", f"agent-{agent}", retired=True)
        self.assertEqual(self.offenders.banned_for("192.0.2.1"), 30.0)

    def test_known_agents_after_a_ban(self) -> None:
        """What was counted towards one ban is not counted towards the next within its minute."""
        for _ in range(3):
            for agent in range(10):
                self.offenders.offended("192.0.2.1", f"agent-{agent}", retired=True)
        self.assertEqual(self.offenders.banned_for("192.0.2.1"), 30.0)

    def test_guesses_of_known_agents_count_beside_others(self) -> None:
        """Ids that nobody knows count each time, whatever they are called."""
        for _ in range(9):
            self.offenders.offended("192.0.2.1", "nobody", retired=False)
        self.offenders.offended("192.0.2.1", "agent-1", retired=True)
        self.assertEqual(self.offenders.banned_for("192.0.2.1"), 30.0)

    def test_known_agents_in_bounds(self) -> None:
        self.patch(admission, "_MOST_AGENTS", 20)
        offenders = Offenders(self.clock, limit=1_000_000)
        for agent in range(1000):
            offenders.offended("192.0.2.1", f"agent-{agent}", retired=True)
        (offender,) = offenders._known.values()
        self.assertEqual(len(offender.agents or ()), 20)
        self.clock.advance(60)
        offenders.offended("192.0.2.1", "agent-1", retired=True)
        self.assertEqual(len(offender.agents or ()), 1)

    def test_pardon(self) -> None:
        """An agent that authenticates halves what is held against its address."""
        self.offend(10)
        self.clock.advance(30)
        self.assertEqual(self.offend(10), 60.0)
        self.offenders.pardon("192.0.2.1")
        self.assertEqual(self.offenders.banned_for("192.0.2.1"), 60.0)  # that goes on
        self.clock.advance(60)
        self.assertEqual(self.offend(10), 60.0)
        self.clock.advance(60)
        self.offend(9)
        self.offenders.pardon("192.0.2.1")
        self.assertEqual(self.offend(5), 0.0)
        self.assertGreater(self.offend(1), 0.0)
        self.offenders.pardon("192.0.2.2")

    def test_pardoned_once_a_minute(self) -> None:
        """Who has the secret of one agent cannot guess those of others without end."""
        for _ in range(20):
            self.offend(1)
            self.offenders.pardon("192.0.2.1")
        self.assertGreater(self.offenders.banned_for("192.0.2.1"), 0.0)

    def test_healthy_agents_behind_one_address(self) -> None:
        """Ten revoked agents that never stop do not shut out those beside them for long."""
        came = []
        for second in range(3600):
            banned = self.offenders.banned_for("192.0.2.1")
            if not banned:
                for agent in range(10):
                    if second % 60 == agent:
                        self.offenders.offended("192.0.2.1", f"agent-{agent}", retired=True)
                if not self.offenders.banned_for("192.0.2.1"):
                    self.offenders.pardon("192.0.2.1")
                    came.append(second)
            self.assertLessEqual(banned, 120.0)
            self.clock.advance(1)
        self.assertGreater(len(came), 1800)

    def test_still_connected(self) -> None:
        """Connections that were open go on offending through a ban."""
        self.offend(10)
        self.clock.advance(10)
        self.assertEqual(self.offend(10), 60.0)

    def test_one_network(self) -> None:
        """Who has one address of an IPv6 network has them all."""
        for number in range(10):
            self.offenders.offended(f"2001:db8:0:1::{number:x}")
        self.assertEqual(self.offenders.banned_for("2001:db8:0:1:ffff::1"), 30.0)
        self.assertEqual(self.offenders.banned_for("2001:db8:0:2::1"), 0.0)
        self.assertEqual(len(self.offenders), 1)

    def test_a_proxy(self) -> None:
        """One that does not say for whom it speaks is not banned with all it speaks for."""
        self.assertEqual(self.offend(100, UNIX), 0.0)

    def test_bounded(self) -> None:
        """The one unheard of for longest is forgotten; one that goes on is not."""
        self.patch(admission, "_MOST_OFFENDERS", 100)
        self.offend(10, "first")
        for number in range(1000):
            self.offenders.offended(f"other {number}")
            self.offenders.offended("busy")
        self.assertEqual(len(self.offenders), 100)
        self.assertEqual(self.offenders.banned_for("first"), 0.0)
        self.assertGreater(self.offenders.banned_for("busy"), 0.0)


class BanListTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.offenders = Offenders(self.clock)

    def offend(self, address: str, times: int = 10) -> None:
        for _ in range(times):
            self.offenders.offended(address)

    def test_bans(self) -> None:
        self.offend("192.0.2.1", 12)
        self.offend("192.0.2.2", 9)
        self.clock.advance(10)
        self.offend("2001:db8::1")
        self.assertEqual(self.offenders.bans(), [("192.0.2.1", 20.0, 12), ("2001:db8::", 30.0, 10)])
        self.clock.advance(20)
        self.assertEqual(self.offenders.bans(), [("2001:db8::", 10.0, 10)])
        self.clock.advance(200)
        self.offend("192.0.2.1")
        self.assertEqual(self.offenders.bans(), [("192.0.2.1", 30.0, 10)])

    def test_lift(self) -> None:
        """Also by another address of the network; and nothing is held against it afterwards."""
        self.offend("2001:db8::1")
        self.offend("192.0.2.2", 9)
        self.assertTrue(self.offenders.lift("2001:db8::2"))
        self.assertEqual(self.offenders.banned_for("2001:db8::1"), 0.0)
        self.assertEqual(self.offenders.bans(), [])
        for address in ("2001:db8::1", "192.0.2.2", "192.0.2.3", "nonsense"):
            self.assertFalse(self.offenders.lift(address))
        self.offend("2001:db8::1")
        self.assertEqual(self.offenders.banned_for("2001:db8::1"), 30.0)
        self.offend("192.0.2.2", 1)
        self.assertEqual(self.offenders.banned_for("192.0.2.2"), 30.0)


class ClientAddressTests(SynchronousTestCase):
    def test_whose_address(self) -> None:
        trusted = ("10.0.0.0/8", "192.0.2.1", "fd00::/8")
        for peer, forwarded, client in (
            # Nobody said anything.
            ("198.51.100.1", "", "198.51.100.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            # Whoever is not ours may say what it likes.
            ("198.51.100.1", "203.0.113.1", "198.51.100.1"),
            ("192.0.2.2", "203.0.113.1", "192.0.2.2"),
            # One proxy; two; and what the client put there itself.
            ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
            ("10.0.0.1", "203.0.113.1, 10.0.0.2", "203.0.113.1"),
            ("10.0.0.1", "127.0.0.1, 10.9.9.9, 203.0.113.1,192.0.2.1", "203.0.113.1"),
            ("fd00::1", "2001:DB8::1", "2001:db8::1"),
            # Ours all the way.
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            # As some proxies write them.
            ("10.0.0.1", "203.0.113.1:4711", "203.0.113.1"),
            ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
            ("10.0.0.1", '"[2001:db8::1]"', "10.0.0.1"),
            ("10.0.0.1", "::ffff:203.0.113.1", "203.0.113.1"),
            # Nonsense: the last one that is known.
            ("10.0.0.1", "unknown", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.1, nonsense, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", ",", "10.0.0.1"),
            # A Unix socket is ours.
            (UNIX, "203.0.113.1", "203.0.113.1"),
            (UNIX, "203.0.113.1, 10.0.0.1", "203.0.113.1"),
            (UNIX, "", UNIX),
            (UNIX, "nonsense", UNIX),
        ):
            found = ClientAddress(trusted).of(peer, forwarded)
            self.assertEqual(found, client, (peer, forwarded))

    def test_nobody_trusted(self) -> None:
        for peer in ("198.51.100.1", "::1", "127.0.0.1"):
            self.assertEqual(ClientAddress().of(peer, "203.0.113.1"), peer)

    def test_configuration(self) -> None:
        self.assertRaises(ValueError, ClientAddress, ["example.com"])
        ClientAddress([UNIX, "10.1.2.3/8"])

    def test_plain(self) -> None:
        for host, plain in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:1", "::ffff:1"),
            ("2001:db8::1", "2001:db8::1"),
        ):
            self.assertEqual(plain_address(host), plain)

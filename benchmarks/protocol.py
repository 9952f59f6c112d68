"""CPU that one message costs: verifying, sealing and reading it, beside the plain way to do it.

Runs alone (``python benchmarks/protocol.py``) and prints one table. Every figure is the median of
several rounds of process CPU time; the rounds of the ways compared alternate, so that a busy
machine burdens both alike.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jetcamer.protocol import (
    MetricsPayload,
    ProtocolError,
    ReplayGuard,
    SigningKey,
    canonical,
    decode_payload,
)

ROUNDS = 15
CALLS = 4000
LIMIT_MICROSECONDS = 8.0
LIMIT_RATIO = 0.5

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TS = 1731819422000
NONCE = "8b1a1f5e-52b6-4a29-9a57-0f6b0a2a0b11"
READINGS = {"cpuPercent": 25.5, "memPercent": 45.21, "diskUsage": 60.1}

key = SigningKey(SECRET)
payload = canonical(READINGS)
message = key.seal("metrics", "agent-123", payload, ts=TS, nonce=NONCE)
spaced = message.replace(b",", b", ").replace(b":", b": ")
forged = message.replace(b"25.5", b"25.6")
envelope = key.open(message)


def plain_verify() -> None:
    found = json.loads(message)
    signature = found.pop("signature")
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()
    expected = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(expected, signature)


def plain_seal() -> None:
    found = {
        "type": "metrics",
        "agentId": "agent-123",
        "ts": TS,
        "nonce": NONCE,
        "payload": READINGS,
    }
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()
    found["signature"] = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
    json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def refuse() -> None:
    try:
        key.open(forged)
    except ProtocolError:
        return
    raise AssertionError("a forged message opened")


guard = ReplayGuard()
counter = iter(range(1 << 62))


def check_replay() -> None:
    step = next(counter)
    guard.check(TS + step, f"nonce-{step}", TS + step)


VERIFY = "verify: SigningKey.open"
PLAIN_VERIFY = "verify: json.loads + json.dumps + hmac.new"
SEAL = "seal: canonical + SigningKey.seal"
PLAIN_SEAL = "seal: json.dumps + hmac.new + json.dumps"

WAYS: dict[str, Callable[[], object]] = {
    VERIFY: lambda: key.open(message),
    PLAIN_VERIFY: plain_verify,
    SEAL: lambda: key.seal("metrics", "agent-123", canonical(READINGS), ts=TS, nonce=NONCE),
    PLAIN_SEAL: plain_seal,
    "read the payload: decode_payload": lambda: decode_payload(envelope, MetricsPayload),
    "replay: ReplayGuard.check": check_replay,
    "verify with white space in it": lambda: key.open(spaced),
    "refuse a forged message": refuse,
}
BESIDE = {VERIFY: PLAIN_VERIFY, SEAL: PLAIN_SEAL}


def measure() -> dict[str, float]:
    """Microseconds of CPU a call, the median of all rounds."""
    rounds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            start = process_time()
            for _ in range(CALLS):
                way()
            rounds[name].append((process_time() - start) / CALLS * 1e6)
    return {name: median(taken) for name, taken in rounds.items()}


def main() -> int:
    took = measure()
    print(f"one metrics message of {len(message)} bytes; medians of {ROUNDS} rounds of {CALLS}\n")
    print(f"{'':44}{'µs of CPU':>10}{'ratio':>9}")
    for name, micros in took.items():
        ratio = f"{micros / took[BESIDE[name]]:.2f}" if name in BESIDE else ""
        print(f"{name:44}{micros:>10.2f}{ratio:>9}")
    verify, share = took[VERIFY], took[VERIFY] / took[PLAIN_VERIFY]
    print()
    for words, value, limit in (
        ("µs of CPU to verify", verify, LIMIT_MICROSECONDS),
        ("of what the plain way costs", share, LIMIT_RATIO),
    ):
        verdict = "met" if value <= limit else "NOT MET"
        print(f"{verdict}: {value:.2f} {words}, required at most {limit:g}")
    return 0 if share <= LIMIT_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())

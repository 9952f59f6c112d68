"""The check of the bucket: the child as it is started, and what the agent makes of its findings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.credential_store import StoredCredentials
from jetcamer.agent.logs.s3_check import Findings, Keys, Line, Question, examine
from jetcamer.agent.logs.s3_client import S3Access
from jetcamer.agent.logs.s3_errors import host_of
from jetcamer.agent.logs.s3_validate import CHECK_SECONDS, S3Check, S3Question, verdict
from tests.support.aws import NOTHING, aws_environ, without_aws
from tests.support.case import ProcessCase
from tests.support.moto_server import KEY_ID, SECRET, MotoServer, shared_moto
from tests.support.s3_proxy import Canned, S3Error, S3Proxy
from tests.support.tools import ROOT

STORED = StoredCredentials(KEY_ID, SECRET, None)


class ClockedReactor:
    """The reactor, whose time the test turns."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.callLater = self.clock.callLater

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class CheckCase(ProcessCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.reactor = ClockedReactor()
        self.check = S3Check(self.reactor)
        self.proxy = S3Proxy(reactor)
        self.proxy.listen()
        self.addCleanup(self.proxy.close)

    async def tearDown(self) -> None:
        await self.check.when_idle()
        self.assertEqual(self.reactor.clock.getDelayedCalls(), [])

    def question(self, bucket: str = "logs", **kwargs: Any) -> S3Question:
        environ = aws_environ(kwargs.pop("environ", None))
        kwargs.setdefault("endpoint", self.proxy.endpoint)
        kwargs.setdefault("stored", STORED)
        return S3Question(
            access=S3Access(bucket, **kwargs),
            machine_id="0123456789abcdef",
            credentials_type="stored-credentials",
            environ=environ,
        )

    async def ask(self, question: S3Question) -> Findings:
        findings = await self.check.ask(question)
        for secret in (SECRET, KEY_ID):
            self.assertNotIn(secret, repr(findings))
            self.assertNotIn(secret, repr(question))
        return findings

    async def examine(self, question: S3Question) -> Findings:
        """As `ask`, but in a thread of ours: what the child does, without the cost of one."""
        without_aws(self)
        access = question.access
        keys = access.stored and Keys(access.stored.access_key_id, access.stored.secret_access_key)
        asked = Question(access.bucket, access.region, access.endpoint, keys, "", {})
        findings = await deferToThread(examine, asked, lambda words: None)
        for secret in (SECRET, KEY_ID):
            self.assertNotIn(secret, repr(findings))
        return findings

    def only_child(self) -> Any:
        (child,) = self.check._children
        return child


class ChildTests(CheckCase):
    async def test_a_bucket_that_is_there_and_one_that_is_not(self) -> None:
        moto = shared_moto()
        there, absent = moto.new_bucket(), moto.new_name()
        moto.s3.put_object(Bucket=there, Key="0123456789abcdef/x", Body=b"x")
        before = moto.buckets()
        found = await self.ask(self.question(there, endpoint=moto.endpoint))
        missing = await self.examine(self.question(absent, endpoint=moto.endpoint))
        self.assertEqual(found, Findings(region="us-east-1", bucket_exists=True))
        words = (
            f"bucket {absent} does not exist at {host_of(moto.endpoint)}: the first upload makes "
            "it, if the credentials allow s3:CreateBucket"
        )
        self.assertEqual(
            missing, Findings(warnings=(words,), region="us-east-1", code="NoSuchBucket")
        )
        self.assertEqual(moto.buckets(), before)
        self.assertEqual(moto.objects(there), {"0123456789abcdef/x": b"x"})

    async def test_nothing_but_one_listing_of_our_own_prefix_is_asked(self) -> None:
        listing = b'<?xml version="1.0"?><ListBucketResult><Name>logs</Name></ListBucketResult>'
        self.proxy.faults = [Canned(200, listing, {"x-amz-bucket-region": "eu-west-1"})]
        findings = await self.ask(self.question(region="eu-central-1"))
        words = (
            "bucket logs is in region eu-west-1, not eu-central-1: set awsRegion to eu-west-1 to "
            "save every upload a detour"
        )
        self.assertEqual(findings, Findings((), (words,), "eu-west-1", True))
        (done,) = self.proxy.done
        self.assertEqual(done.method, "GET")
        self.assertRegex(
            done.path, r"^/logs\?list-type=2&prefix=0123456789abcdef%2F&max-keys=1(&|$)"
        )

    async def test_what_keeps_it_from_an_answer(self) -> None:
        closed = S3Proxy(reactor)
        closed.listen()
        await closed.down()
        denied = S3Error(403, "AccessDenied")
        self.proxy.faults = [denied]
        cases = [
            (
                self.question(),
                "these AWS credentials lack the permission s3:ListBucket on bucket logs",
                "AccessDenied",
            ),
            (
                self.question(endpoint=closed.endpoint),
                f"{host_of(closed.endpoint)} refuses the connection",
                "EndpointConnectionError",
            ),
            (
                self.question(endpoint="http://s3.invalid"),
                "the name s3.invalid cannot be resolved: ",
                "EndpointConnectionError",
            ),
            (
                self.question(stored=None),
                "no AWS credentials were found: store them (PUT /internal/set-aws-config)",
                "NoCredentialsError",
            ),
            (
                self.question(endpoint="http://[::1"),
                "botocore cannot use the endpoint [::1 with bucket logs",
                "ValueError",
            ),
        ]
        for question, words, code in cases:
            findings = await self.examine(question)
            with self.subTest(code=code):
                self.assertEqual(len(findings.errors), 1)
                self.assertIn(words, findings.errors[0])
                self.assertEqual(findings.code, code)
                self.assertEqual(findings.bucket_exists, code == "AccessDenied")
                self.assertEqual(findings.region, "us-east-1")

    async def test_credentials_of_the_environment_come_through_standard_input(self) -> None:
        moto = shared_moto()
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "LS_COLORS": "\udcff"}
        bucket = moto.new_bucket()
        question = self.question(bucket, endpoint=moto.endpoint, stored=None, environ=keys)
        self.assertEqual((await self.ask(question)).errors, ())

    async def test_a_python_that_is_not_there(self) -> None:
        self.check = S3Check(self.reactor, python="/nonexistent/python")
        findings = await self.ask(self.question())
        words = "the check itself ended without a result (exit status 1)"
        self.assertEqual(findings, Findings(errors=(words,), region="us-east-1"))

    async def test_an_endpoint_that_is_no_text(self) -> None:
        findings = await self.ask(self.question(endpoint="http://\udcff"))
        words = "the check cannot be started: a setting is not UTF-8 text"
        self.assertEqual(findings.errors, (words,))

    async def test_as_a_program(self) -> None:
        question = Question("logs", None, "http://s3.invalid", Keys(KEY_ID, SECRET), "", NOTHING)
        path = Path(self.mktemp())
        path.write_bytes(msgspec.json.encode(question))
        script = f"exec {sys.executable} -X importtime -m jetcamer.agent.logs.s3_check < {path}"
        output, errors, status = await getProcessOutputAndValue(
            "/bin/sh", ["-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.assertEqual(status, 0)
        *waiting, last = [msgspec.json.decode(line, type=Line) for line in output.splitlines()]
        self.assertEqual([line.findings for line in waiting], [None] * 3)
        self.assertIn("the name s3.invalid", last.findings.errors[0])
        self.assertNotIn(SECRET.encode(), output + errors)
        self.assertNotIn(b"twisted", errors)
        self.assertIn(b"botocore", errors)


class DeadlineTests(CheckCase):
    """Whatever hangs, there is an answer in time, and nothing stays behind."""

    async def test_a_child_that_has_not_begun(self) -> None:
        asking = self.check.ask(self.question())
        self.reactor.clock.advance(CHECK_SECONDS)
        (words,) = self.successResultOf(asking).errors
        self.assertEqual(words, "the check did not begin within 4.5 s")

    def helper_that_hangs(self) -> tuple[S3Question, Deferred[None], Deferred[None]]:
        """A question whose credentials a program is to hand out, which never does; the other two
        fire when that program has begun and when it is gone."""
        begun: Deferred[None] = Deferred()
        ended: Deferred[None] = Deferred()
        helper = Protocol()
        helper.connectionMade = lambda: begun.callback(None)  # type: ignore[method-assign]
        helper.connectionLost = lambda reason=None: ended.callback(None)  # type: ignore[method-assign]
        factory = Factory.forProtocol(lambda: helper)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        script = Path(self.mktemp()).absolute()
        script.write_text(
            "import socket\n"
            f"socket.create_connection(('127.0.0.1', {port.getHost().port})).recv(1)\n"
        )
        config = Path(self.mktemp()).absolute()
        config.write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
        environ = {"AWS_CONFIG_FILE": str(config)}
        return self.question(stored=None, environ=environ), begun, ended

    async def test_a_helper_that_never_hands_out_credentials(self) -> None:
        """It goes with the child that started it."""
        question, begun, ended = self.helper_that_hangs()
        asking = self.check.ask(question)
        await begun
        self.reactor.clock.advance(CHECK_SECONDS)
        (words,) = self.successResultOf(asking).errors
        self.assertIn("no AWS credentials were found (environment, files, ", words)
        self.assertTrue(words.endswith(" within 4.5 s"), words)
        await ended

    async def test_two_who_ask_the_same_share_a_child(self) -> None:
        self.proxy.mode = "hang"
        first, second = (self.check.ask(self.question()) for _ in range(2))
        other = self.check.ask(self.question("others"))
        self.assertEqual(len(self.check._children), 2)
        await self.proxy.when_done(2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.reactor.clock.advance(CHECK_SECONDS)
        self.assertEqual(self.successResultOf(second), self.successResultOf(other))
        # Those two are being ended: who asks now gets a child of his own.
        third = self.check.ask(self.question())
        self.assertEqual(len(self.check._children), 3)
        third.cancel()
        self.failureResultOf(third, CancelledError)

    async def test_nobody_waits_any_longer(self) -> None:
        question, begun, ended = self.helper_that_hangs()
        both = [self.check.ask(question) for _ in range(2)]
        await begun
        for asking in both:
            asking.cancel()
            self.failureResultOf(asking, CancelledError)
        await ended

    async def test_a_server_that_never_answers(self) -> None:
        """Meanwhile secrets stand neither in arguments nor in the environment."""
        self.proxy.mode = "hang"
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        asking = self.check.ask(self.question(environ=keys))
        await self.proxy.when_done(1)
        process = Path(f"/proc/{self.only_child().pid}")
        arguments = (process / "cmdline").read_bytes().split(b"\0")
        self.assertEqual(arguments[1:], [b"-P", b"-m", b"jetcamer.agent.logs.s3_check", b""])
        environment = (process / "environ").read_bytes()
        for text in (SECRET.encode(), KEY_ID.encode()):
            self.assertNotIn(text, environment)
        self.reactor.clock.advance(CHECK_SECONDS)
        words = f"there was no answer from {host_of(self.proxy.endpoint)} within 4.5 s"
        self.assertEqual(
            self.successResultOf(asking), Findings(errors=(words,), region="us-east-1")
        )
        await self.proxy.when_idle()


class PermissionTests(CheckCase):
    """Against a server that looks at signatures and permissions itself."""

    async def test_each_is_told_apart(self) -> None:
        moto = MotoServer(free_requests=4)
        self.addCleanup(moto.stop)
        iam = moto.client("iam")
        policy = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}
        iam.create_user(UserName="writer")
        iam.put_user_policy(
            UserName="writer",
            PolicyName="writes",
            PolicyDocument=msgspec.json.encode(
                {"Version": "2012-10-17", "Statement": [policy]}
            ).decode(),
        )
        key = iam.create_access_key(UserName="writer")["AccessKey"]
        moto.s3.create_bucket(Bucket="logs")
        cases = (
            (key["AccessKeyId"], key["SecretAccessKey"], "AccessDenied"),
            (key["AccessKeyId"], SECRET, "SignatureDoesNotMatch"),
            (KEY_ID, SECRET, "InvalidAccessKeyId"),
        )
        for *pair, code in cases:
            stored = StoredCredentials(*pair, None)
            findings = await self.examine(self.question(stored=stored, endpoint=moto.endpoint))
            self.assertEqual(findings.code, code)


class VerdictTests(SynchronousTestCase):
    def question(self, **kwargs: Any) -> S3Question:
        return S3Question(
            **{
                "access": S3Access("logs", stored=STORED),
                "machine_id": "abc",
                "credentials_type": "stored-credentials",
                "environ": {},
                **kwargs,
            }
        )

    def test_good(self) -> None:
        findings = Findings(region="eu-west-1", bucket_exists=True, warnings=("w",))
        self.assertEqual(
            verdict(self.question(), findings),
            {
                "valid": True,
                "warnings": ["w"],
                "region": "eu-west-1",
                "bucketExists": True,
                "machineId": "abc",
                "credentialsType": "stored-credentials",
            },
        )

    def test_bad(self) -> None:
        findings = Findings(errors=("no route",))
        self.assertEqual(
            verdict(self.question(machine_id=None, last_error="denied"), findings),
            {
                "valid": False,
                "errors": ["no route", "the archive does not get on: denied"],
                "bucketExists": False,
                "credentialsType": "stored-credentials",
            },
        )
        answer = verdict(self.question(last_error="no route"), findings)
        self.assertEqual(answer["errors"], ["no route"])

    def test_the_archive_s_own_experience(self) -> None:
        denied = Findings(errors=("no s3:ListBucket",), bucket_exists=True, code="AccessDenied")
        answer = verdict(self.question(), denied)
        self.assertEqual((answer["valid"], answer["errors"]), (False, ["no s3:ListBucket"]))
        answer = verdict(self.question(uploads_work=True), denied)
        self.assertEqual((answer["valid"], answer["bucketExists"]), (True, True))
        self.assertEqual(answer["warnings"], ["uploads work, but no s3:ListBucket"])
        unknown = Findings(errors=("what?",), code="InvalidAccessKeyId")
        self.assertFalse(verdict(self.question(uploads_work=True), unknown)["valid"])
        fine = Findings(bucket_exists=True)
        answer = verdict(self.question(last_error="s3:PutObject"), fine)
        self.assertEqual(answer["errors"], ["the archive does not get on: s3:PutObject"])
        gone = Findings(warnings=("gone",), code="NoSuchBucket")
        answer = verdict(self.question(uploads_work=True), gone)
        self.assertEqual((answer["valid"], answer["bucketExists"]), (True, False))

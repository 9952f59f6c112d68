"""Uploads: against moto's server, with every fault in between, and against what S3 may say."""

from __future__ import annotations

import email.utils
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from jetcamer.agent.credential_store import StoredCredentials
from jetcamer.agent.logs.s3 import S3Uploader, explain, plain_metadata
from jetcamer.agent.logs.s3_client import S3Access, create_bucket, make_client, make_session
from jetcamer.agent.logs.s3_client import put_object as put_object_now
from jetcamer.agent.logs.s3_errors import CREATE, LIST, UploadError, host_of
from tests.support.aws import aws_environ, share_botocore_data, without_aws
from tests.support.certs import TestCA
from tests.support.moto_server import KEY_ID, SECRET, shared_moto
from tests.support.s3_proxy import Canned, Fault, S3Error, S3Proxy
from tests.support.tools import ROOT

STORED = StoredCredentials(KEY_ID, SECRET, None)
KEY = "0123456789abcdef/2026-11-23/052000-ab12cd34ef56-0-12.ndjson"
BODY = b'{"raw":"a"}\n'


def always(body: bytes = BODY) -> Callable[[], bytearray]:
    return lambda: bytearray(body)


class ProxyCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        without_aws(self)
        share_botocore_data(self)
        self.moto = shared_moto()
        self.proxy = S3Proxy(reactor, self.moto.port)
        self.proxy.listen()
        self.addCleanup(self.proxy.close)

    def access(self, bucket: str, **kwargs: Any) -> S3Access:
        kwargs.setdefault("stored", STORED)
        kwargs.setdefault("endpoint", self.proxy.endpoint)
        return S3Access(bucket, **kwargs)

    def uploader(self, access: S3Access, **kwargs: Any) -> S3Uploader:
        uploader = S3Uploader(reactor, access, **kwargs)
        self.addCleanup(uploader.stop)
        return uploader

    async def failure(self, deferred: Deferred[Any], kind: type[Exception] = UploadError) -> Any:
        try:
            await deferred
        except kind as error:
            return error
        raise self.failureException("it did not fail")


class UploadTests(ProxyCase):
    async def test_an_object_as_the_reader_expects_it(self) -> None:
        bucket = self.moto.new_bucket()
        uploader = self.uploader(self.access(bucket))
        metadata = {"host": "wéb 1", "from": "a%b"}
        await uploader.put(KEY, always(), metadata)
        found = self.moto.s3.get_object(Bucket=bucket, Key=KEY)
        self.assertEqual(found["Body"].read(), BODY)
        self.assertEqual(found["ContentType"], "application/x-ndjson")
        self.assertNotIn("ContentEncoding", found)
        self.assertEqual(found["Metadata"], {"host": "w%C3%A9b 1", "from": "a%25b"})
        await uploader.put(KEY, always(b"again\n"), metadata)
        self.assertEqual(self.moto.objects(bucket), {KEY: b"again\n"})
        # Path style, and none of the newer checksums: other makers of S3 know neither.
        (head, *_) = self.proxy.received[0].split(b"\r\n\r\n")
        self.assertIn(f"PUT /{bucket}/{KEY} ".encode(), head)
        for newer in (b"checksum", b"trailer", b"aws-chunked"):
            self.assertNotIn(newer, head.lower())

    async def test_where_no_thread_can_be_started(self) -> None:
        bucket = self.moto.new_bucket()
        uploader = self.uploader(self.access(bucket))
        with mock.patch("threading.Thread.start", side_effect=RuntimeError):
            for _ in range(5):
                error = await self.failure(uploader.put(KEY, always(), {}))
                self.assertEqual(
                    (error.kind, str(error)[:20]), ("transient", "the system gives no ")
                )
        await uploader.put(KEY, always(), {})
        # One that runs does it all.
        with mock.patch("threading.Thread.start", side_effect=RuntimeError):
            await gatherResults([uploader.put(f"{KEY}{n}", always(), {}) for n in range(3)])
        self.assertEqual(len(self.moto.objects(bucket)), 4)

    async def test_an_absent_bucket_is_made_once(self) -> None:
        bucket = self.moto.new_name()
        uploader = self.uploader(self.access(bucket))
        with capturedLogs() as events:
            await gatherResults(
                [uploader.put(f"{KEY}{number}", always(), {}) for number in range(8)]
            )
        self.assertEqual(len(self.moto.objects(bucket)), 8)
        making = [done for done in self.proxy.done if done[1:] == ("PUT", f"/{bucket}")]
        self.assertEqual(len(making), 1)
        said = [event["bucket"] for event in events if "created" in event.get("log_format", "")]
        self.assertEqual(said, [bucket])

    async def test_a_bucket_is_made_in_its_region(self) -> None:
        for region, where in (("eu-west-1", "eu-west-1"), ("us-east-1", None), (None, None)):
            bucket = self.moto.new_name()
            uploader = self.uploader(self.access(bucket, region=region))
            await uploader.put(KEY, always(), {})
            answer = self.moto.s3.get_bucket_location(Bucket=bucket)
            self.assertEqual(answer["LocationConstraint"], where)

    async def test_a_bucket_that_may_not_be_made(self) -> None:
        bucket = self.moto.new_name()
        uploader = self.uploader(self.access(bucket))
        self.proxy.faults = ["ok", "ok", S3Error(403, "AccessDenied")]
        error = await self.failure(uploader.put(KEY, always(), {}))
        self.assertEqual(error.kind, "environment")
        for part in (bucket, "s3:CreateBucket", "does not exist"):
            self.assertIn(part, str(error))
        self.proxy.faults = ["ok", "ok", S3Error(409, "BucketAlreadyExists")]
        error = await self.failure(uploader.put(KEY, always(), {}))
        self.assertEqual(error.kind, "environment")
        self.assertIn(f"bucket {bucket} belongs to another account", str(error))

    async def test_a_bucket_that_somebody_made_meanwhile(self) -> None:
        bucket = self.moto.new_name()
        uploader = self.uploader(self.access(bucket, region="eu-west-1"))
        self.proxy.faults = [S3Error(404, "NoSuchBucket"), S3Error(404, "NoSuchBucket")]
        self.moto.s3.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        await uploader.put(KEY, always(), {})
        self.assertEqual(self.moto.objects(bucket), {KEY: BODY})

    async def test_every_fault_and_the_try_after_it(self) -> None:
        bucket = self.moto.new_bucket()
        uploader = self.uploader(self.access(bucket), read_timeout=0.5)
        await uploader.put("first", always(), {})
        at = host_of(self.proxy.endpoint)
        closed = f"{at} closed the connection before it had answered"
        table: list[tuple[Fault, str, float | None, bool]] = [
            ("refuse", closed, None, False),
            ("cut", closed, None, False),
            ("lost", closed, None, True),
            ("hang", f"{at} does not answer: connected, and silent", None, False),
            ("500", f"{at} has trouble (500 InternalError)", None, False),
            ("503", f"{at} asks to slow down (503 SlowDown)", 7.0, False),
            (Canned(502, b"<html>Bad Gateway"), f"{at} has trouble (status 502)", None, False),
        ]
        body = b"x" * 300_000
        for number, (fault, words, after, stored) in enumerate(table):
            with self.subTest(fault=fault):
                key = f"key-{number}"
                self.proxy.done.clear()
                self.proxy.faults = [fault]
                error = await self.failure(uploader.put(key, always(body), {}))
                self.assertEqual((str(error), error.kind), (words, "transient"))
                self.assertEqual(error.retry_after, after)
                self.assertEqual(key in self.moto.objects(bucket), stored)
                await uploader.put(key, always(body), {})
                self.assertEqual(self.moto.objects(bucket)[key], body)
                self.assertEqual(self.proxy.kinds(), [fault, "ok"])

    async def test_a_slow_one_succeeds(self) -> None:
        bucket = self.moto.new_bucket()
        self.proxy.faults = ["slow"]
        await self.uploader(self.access(bucket)).put(KEY, always(), {})
        self.assertEqual(self.proxy.kinds(), ["slow"])
        self.assertEqual(self.moto.objects(bucket), {KEY: BODY})

    async def test_a_closed_port_and_back(self) -> None:
        bucket = self.moto.new_bucket()
        uploader = self.uploader(self.access(bucket))
        await self.proxy.down()
        error = await self.failure(uploader.put(KEY, always(), {}))
        words = f"{host_of(self.proxy.endpoint)} refuses the connection"
        self.assertEqual((str(error), error.kind), (words, "transient"))
        self.proxy.up()
        await uploader.put(KEY, always(), {})
        self.assertEqual(self.moto.objects(bucket), {KEY: BODY})

    async def test_a_name_that_does_not_exist(self) -> None:
        uploader = self.uploader(self.access("bucket", endpoint="http://s3.invalid:9000"))
        error = await self.failure(uploader.put(KEY, always(), {}))
        self.assertEqual(error.kind, "transient")
        self.assertIn("the name s3.invalid:9000 cannot be resolved: ", str(error))

    async def test_bodies_are_made_in_the_thread_and_may_fail(self) -> None:
        uploader = self.uploader(self.access(self.moto.new_bucket()))
        threads = []

        def make_body() -> bytes:
            threads.append(threading.current_thread())
            raise ZeroDivisionError("the file is gone")

        error = await self.failure(uploader.put(KEY, make_body, {}), ZeroDivisionError)
        self.assertEqual(str(error), "the file is gone")
        self.assertIsNot(threads[0], threading.main_thread())
        self.assertTrue(threads[0].daemon)
        self.assertEqual(self.proxy.done, [])

    async def test_credentials_that_appear_where_botocore_looks(self) -> None:
        path = os.path.abspath(self.mktemp())
        without_aws(self, {"AWS_SHARED_CREDENTIALS_FILE": path})
        bucket = self.moto.new_bucket()
        uploader = self.uploader(self.access(bucket, stored=None))
        error = await self.failure(uploader.put(KEY, always(), {}))
        self.assertEqual((error.kind, error.code), ("environment", "NoCredentialsError"))
        self.assertIn("/internal/set-aws-config", str(error))
        with open(path, "w") as file:
            file.write(f"[default]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\n")
        await uploader.put(KEY, always(), {})
        self.assertEqual(self.moto.objects(bucket), {KEY: BODY})

    async def test_the_role_of_an_instance(self) -> None:
        keys = {
            "Code": "Success",
            "AccessKeyId": KEY_ID,
            "SecretAccessKey": SECRET,
            "Token": "session-token",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        metadata = S3Proxy(reactor)
        metadata.faults = [
            Canned(200, b"token"),
            Canned(200, b"archive"),
            Canned(200, json.dumps(keys).encode()),
        ]
        base = metadata.listen()
        self.addCleanup(metadata.close)
        variables = {"DISABLED": "false", "SERVICE_ENDPOINT": base}
        without_aws(self, {f"AWS_EC2_METADATA_{name}": variables[name] for name in variables})
        bucket = self.moto.new_bucket()
        await self.uploader(self.access(bucket, stored=None)).put(KEY, always(), {})
        self.assertEqual(self.moto.objects(bucket), {KEY: BODY})
        self.assertIn(b"\r\nX-Amz-Security-Token: session-token\r\n", self.proxy.received[0])
        self.assertTrue(metadata.done[-1].path.endswith("/iam/security-credentials/archive"))

    async def test_the_right_region_is_followed(self) -> None:
        bucket = self.moto.new_bucket()
        uploader = self.uploader(self.access(bucket))
        wrong = S3Error(400, "AuthorizationHeaderMalformed", members={"Region": "eu-west-1"})
        self.proxy.faults = [wrong]
        await uploader.put(KEY, always(), {})
        self.assertIn(b"/eu-west-1/s3/aws4_request", self.proxy.received[-1])
        self.assertEqual(self.moto.objects(bucket), {KEY: BODY})


class TLSTests(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        self.ca = TestCA(self.mktemp())
        self.bucket = self.moto.new_bucket()

    def listen(self, **names: Any) -> S3Uploader:
        tls = self.ca.issue(**names).server_context(acceptableProtocols=[b"http/1.1"])
        self.proxy = S3Proxy(reactor, self.moto.port, tls)
        self.addCleanup(self.proxy.close)
        return self.uploader(self.access(self.bucket, endpoint=self.proxy.listen()))

    async def check(self, uploader: S3Uploader, words: str) -> None:
        error = await self.failure(uploader.put(KEY, always(), {}))
        self.assertEqual(error.kind, "environment")
        self.assertTrue(str(error).startswith(words), str(error))
        self.assertEqual(self.moto.objects(self.bucket), {})

    async def test_a_ca_of_the_operator_s_own(self) -> None:
        uploader = self.listen(ips=["127.0.0.1"])
        at = host_of(self.proxy.endpoint)
        signed = f"TLS with {at} failed: unable to get local issuer certificate (AWS_CA_BUNDLE"
        await self.check(uploader, signed)
        without_aws(self, {"AWS_CA_BUNDLE": self.ca.path_cert})
        await uploader.put(KEY, always(), {})
        self.assertEqual(self.moto.objects(self.bucket), {KEY: BODY})

    async def test_a_certificate_of_another(self) -> None:
        without_aws(self, {"AWS_CA_BUNDLE": self.ca.path_cert})
        uploader = self.listen(dns=["hub.example"])
        at = host_of(self.proxy.endpoint)
        words = f"TLS with {at} failed: hostname '127.0.0.1' doesn't match"
        await self.check(uploader, words)

    async def test_a_port_that_speaks_no_tls(self) -> None:
        endpoint = self.moto.endpoint.replace("http:", "https:")
        uploader = self.uploader(self.access(self.bucket, endpoint=endpoint))
        await self.check(uploader, f"TLS with {host_of(endpoint)} failed: wrong version number (")


class ThreadTests(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        self.bucket = self.moto.new_bucket()

    def threads(self) -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name.startswith("jetcamer-s3-")]

    async def ended(self, threads: list[threading.Thread]) -> None:
        await deferToThread(lambda: [each.join(20) for each in threads])
        self.assertFalse([each for each in threads if each.is_alive()])

    async def test_no_more_than_allowed_at_once_and_none_in_the_end(self) -> None:
        before = set(self.threads())
        uploader = self.uploader(self.access(self.bucket), threads=2, idle=0.01)
        self.assertEqual(set(self.threads()) - before, set())
        self.proxy.mode = "hang"
        puts = [uploader.put(f"{KEY}-{number}", always(), {}) for number in range(5)]
        mine = [each for each in self.threads() if each not in before]
        self.assertEqual(len(mine), 2)
        await self.proxy.when_done(2)
        self.assertEqual(len(self.proxy.received), 0)
        self.proxy.mode = "ok"
        await self.proxy.drop()
        await gatherResults([put.addErrback(lambda _: None) for put in puts])
        self.assertEqual(len(self.moto.objects(self.bucket)), 3)
        await self.ended(mine)
        await uploader.put(KEY, always(), {})  # starts one again

    async def test_stopping_waits_for_nobody(self) -> None:
        before = set(self.threads())
        uploader = self.uploader(self.access(self.bucket), threads=1)
        self.proxy.mode = "hang"
        puts = [uploader.put(f"{KEY}-{number}", always(), {}) for number in range(2)]
        await self.proxy.when_done(1)
        mine = [each for each in self.threads() if each not in before]
        uploader.stop()
        for put in [*puts, uploader.put(KEY, always(), {})]:
            self.failureResultOf(put, CancelledError)
        uploader.stop()
        await self.proxy.close()
        await self.ended(mine)
        self.assertEqual(len(self.proxy.done), 1)
        self.proxy.up()

    async def test_cancelling_takes_back_what_has_not_begun(self) -> None:
        uploader = self.uploader(self.access(self.bucket), threads=1)
        self.proxy.mode = "slow"
        first, second, third = [uploader.put(str(n), always(), {}) for n in range(3)]
        second.cancel()
        self.failureResultOf(second, CancelledError)
        await third
        self.successResultOf(first)
        self.assertEqual(set(self.moto.objects(self.bucket)), {"0", "2"})

    async def test_the_process_ends_with_an_upload_under_way(self) -> None:
        program = (
            "import sys\n"
            "from twisted.internet import reactor\n"
            "from jetcamer.agent.credential_store import StoredCredentials\n"
            "from jetcamer.agent.logs.s3 import S3Access, S3Uploader\n"
            "print([name for name in sys.modules if name.startswith('boto')], flush=True)\n"
            "access = S3Access('bucket', None, sys.argv[1], StoredCredentials('AKIA', 'x'))\n"
            "S3Uploader(reactor, access).put('key', lambda: b'x', {}).addErrback(print)\n"
            "reactor.callLater(0, sys.stdin.read)\n"  # until the request is there
            "reactor.callLater(0, reactor.stop)\n"
            "reactor.run()\n"
        )
        self.proxy.mode = "hang"
        process = subprocess.Popen(
            [sys.executable, "-c", program, self.proxy.endpoint],
            cwd=ROOT,
            env=aws_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        await self.proxy.when_done(1)
        output, _ = await deferToThread(process.communicate, timeout=15)  # less than the upload
        self.assertEqual((output, process.returncode), (b"[]\n", 0))


class AnswerTests(ProxyCase):
    """What S3 documents, and moto never says."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = S3Proxy(reactor)
        self.proxy.listen()
        self.addCleanup(self.proxy.close)
        self.at = host_of(self.proxy.endpoint)

    async def ask(self, action: str, *faults: Fault) -> UploadError:
        access = self.access("logs", region="eu-central-1")

        def now() -> None:
            client = self.client = getattr(self, "client", None) or make_client(
                make_session(access), access
            )
            if action == CREATE:
                create_bucket(client, access)
            elif action == LIST:
                try:
                    client.list_objects_v2(Bucket="logs")
                except Exception as error:
                    raise explain(error, access, LIST) from None
            else:
                put_object_now(client, access, KEY, BODY, {})

        self.proxy.faults = list(faults)
        error = await self.failure(deferToThread(now))
        self.assertEqual(self.proxy.faults, [])
        for secret in (SECRET, KEY_ID, "arn:aws:iam", "\n"):
            self.assertNotIn(secret, str(error) + repr(error))
        return error

    async def check(self, action: str, fault: Fault, kind: str, words: str) -> None:
        with self.subTest(fault=fault):
            error = await self.ask(action, fault)
            self.assertEqual((str(error), error.kind), (words, kind))

    async def test_uploads(self) -> None:
        said = (
            "User: arn:aws:iam::123456789012:user/x is not authorized to perform: "
            "kms:GenerateDataKey on this resource"
        )
        at = self.at
        denied = "these AWS credentials lack the permission"
        for fault, kind, words in (
            (
                S3Error(400, "ExpiredToken", members={"Token-0": SECRET}),
                "environment",
                "the AWS credentials have expired: renew them where they come from "
                "(environment, file or role), or store others (PUT /internal/set-aws-config)",
            ),
            (
                S3Error(400, "InvalidToken"),
                "environment",
                f"{at} does not accept the session token of the AWS credentials",
            ),
            (
                S3Error(403, "InvalidAccessKeyId", members={"AWSAccessKeyId": KEY_ID}),
                "environment",
                f"{at} does not know the access key id: it is mistyped, deleted, inactive, or "
                "of another kind of S3",
            ),
            (
                S3Error(403, "SignatureDoesNotMatch", members={"StringToSign": SECRET}),
                "environment",
                "the secret access key is wrong: it is not the one of the access key id",
            ),
            (S3Error(403, "AccessDenied"), "environment", f"{denied} s3:PutObject on bucket logs"),
            (
                S3Error(403, "AccessDenied", said),
                "environment",
                f"{denied} kms:GenerateDataKey on bucket logs",
            ),
            (
                Canned(403, b"<html>The firewall says no"),
                "environment",
                f"{denied} s3:PutObject on bucket logs (status 403)",
            ),
            (
                S3Error(403, "AccountProblem"),
                "environment",
                f"{denied} s3:PutObject on bucket logs (403 AccountProblem)",
            ),
            (
                S3Error(404, "NoSuchBucket"),
                "environment",
                f"bucket logs does not exist at {at}",
            ),
            (
                Canned(404, b"Not here"),
                "environment",
                f"what answers at {at} is not S3 (status 404)",
            ),
            (
                Canned(400, b"The plain HTTP request was sent to HTTPS port"),
                "environment",
                f"what answers at {at} is not S3 (status 400)",
            ),
            (
                S3Error(400, "KMS.DisabledException"),
                "environment",
                f"{at} refuses the request (400 KMS.DisabledException)",
            ),
            (
                Canned(405, b"", {"Allow": "GET"}),
                "environment",
                f"{at} refuses the request (status 405)",
            ),
            (
                S3Error(501, "NotImplemented"),
                "environment",
                f"{at} refuses the request (501 NotImplemented)",
            ),
            (
                # botocore itself makes a failure of it.
                Canned(200, b"<html>Welcome to the hotel"),
                "transient",
                f"{at} has trouble (status 500)",
            ),
            (
                Canned(200),
                "environment",
                f"what answers at {at} is not S3: it names no ETag for what it took",
            ),
            (
                S3Error(400, "EntityTooLarge"),
                "too_large",
                f"{at} refuses the object (400 EntityTooLarge)",
            ),
            (
                S3Error(400, "KeyTooLongError"),
                "too_large",
                f"{at} refuses the object (400 KeyTooLongError)",
            ),
            (
                S3Error(400, "InvalidRequest"),
                "refused",
                f"{at} refuses the request (400 InvalidRequest)",
            ),
            (
                S3Error(400, "XMinioAdminBucketQuotaExceeded"),
                "environment",
                "bucket logs is full, or a quota is used up (400 XMinioAdminBucketQuotaExceeded)",
            ),
            (Canned(413), "too_large", f"{at} refuses the object (status 413)"),
            (
                S3Error(400, "RequestTimeout"),
                "transient",
                f"{at} has trouble (400 RequestTimeout)",
            ),
            (
                S3Error(400, "IncompleteBody"),
                "transient",
                f"{at} has trouble (400 IncompleteBody)",
            ),
            (
                S3Error(503, "ServiceUnavailable"),
                "transient",
                f"{at} has trouble (503 ServiceUnavailable)",
            ),
            (Canned(429), "transient", f"{at} has trouble (status 429)"),
            (S3Error(507, "Full\u202e"), "transient", f"{at} has trouble (507 Full)"),
        ):
            await self.check("put", fault, kind, words)

    async def test_the_other_actions(self) -> None:
        denied = "these AWS credentials lack the permission s3:ListBucket on bucket logs"
        await self.check(LIST, S3Error(403, "AccessDenied"), "environment", denied)
        words = f"{self.at} refuses the request (400 InvalidRequest)"
        await self.check(LIST, S3Error(400, "InvalidRequest"), "environment", words)
        words = f"{self.at} has trouble (409 OperationAborted)"
        await self.check(CREATE, S3Error(409, "OperationAborted"), "transient", words)

    async def test_the_wrong_region(self) -> None:
        words = "bucket logs is in region eu-west-1, not eu-central-1: set awsRegion to eu-west-1"
        body = S3Error(400, "AuthorizationHeaderMalformed", members={"Region": "eu-west-1"})
        header = S3Error(301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-1"})
        for fault in (body, header):
            # botocore follows the first one itself.
            error = await self.ask("put", fault, fault)
            self.assertEqual((str(error), error.kind), (words, "environment"))
            self.assertEqual(error.region, "eu-west-1")
            self.client = None
        await self.check(
            "put",
            S3Error(400, "InvalidRegion"),
            "environment",
            "bucket logs is not in region eu-central-1: set awsRegion to the right one",
        )
        # "<hash> is not a valid key=value pair": the key id holds a slash, say.
        await self.check(
            "put",
            S3Error(400, "AuthorizationHeaderMalformed"),
            "environment",
            f"{self.at} cannot read the signature: the access key id looks wrong",
        )

    async def test_a_wrong_clock(self) -> None:
        for off, side in ((-3600, "ahead of"), (3600, "behind")):
            date = email.utils.formatdate(time.time() + off, usegmt=True)
            error = await self.ask("put", S3Error(403, "RequestTimeTooSkewed", "", {"Date": date}))
            self.assertEqual(error.kind, "environment")
            pattern = rf"this machine's clock is 3[56]\d\d s {side} S3's: set it \(NTP\)"
            self.assertRegex(str(error), pattern)
        odd = S3Error(403, "RequestTimeTooSkewed", "", {"Date": "yesterday"})
        words = "this machine's clock is too far from S3's: set it (NTP)"
        await self.check("put", odd, "environment", words)


class AmazonTests(SynchronousTestCase):
    def test_aws_itself_and_others(self) -> None:
        from botocore.awsrequest import AWSResponse

        without_aws(self)
        share_botocore_data(self)
        sent: list[Any] = []

        def send(request: Any, **_: Any) -> AWSResponse:
            sent.append(request)
            raw = io.BytesIO()
            raw.stream = lambda: iter(())  # type: ignore[attr-defined]
            return AWSResponse(request.url, 200, {"ETag": '"x"'}, raw)

        for region, host in (
            (None, "logs.s3.amazonaws.com"),
            ("eu-west-1", "logs.s3.eu-west-1.amazonaws.com"),
        ):
            access = S3Access("logs", region, stored=STORED)
            client = make_client(make_session(access), access)
            client.meta.events.register("before-send.s3", send)
            put_object_now(client, access, KEY, BODY, {})
            self.assertEqual(sent[-1].url, f"https://{host}/{KEY}")
            self.assertIn(f"/{access.region_name}/s3/".encode(), sent[-1].headers["Authorization"])
            self.assertIn("x-amz-sdk-checksum-algorithm", sent[-1].headers)
        access = S3Access("logs", None, "http://minio:9000", STORED)
        client = make_client(make_session(access), access)
        client.meta.events.register("before-send.s3", send)
        put_object_now(client, access, KEY, BODY, {})
        self.assertEqual(sent[-1].url, f"http://minio:9000/logs/{KEY}")


class PlainTests(SynchronousTestCase):
    def test_metadata_is_ascii_and_short(self) -> None:
        value = plain_metadata({"path": "/var/lög/\udcff\ud800\n" + "é" * 500})["path"]
        self.assertTrue(value.startswith("/var/l%C3%B6g/\\udcff\\ud800%0A%C3%A9"))
        self.assertTrue(value.isascii() and value.isprintable())
        self.assertRegex(value, "%A9$|%C3$")
        self.assertLessEqual(len(value), 400)

    def test_secrets_do_not_show(self) -> None:
        access = S3Access("logs", None, f"http://user:{SECRET}@minio:9000", STORED)
        self.assertEqual(access.host, "minio:9000")
        for text in (repr(access), str(access), repr(S3Access("b", endpoint=f"[{SECRET}@x"))):
            self.assertNotIn(SECRET, text)
            self.assertNotIn(KEY_ID, text)

    def test_errors_of_botocore_s_own(self) -> None:
        from botocore import exceptions as theirs
        from botocore.parsers import ResponseParserError

        access = S3Access("logs", "eu-west-1")
        own = "urlopen: https://user:hunter2@proxy:3128"
        for error, kind, words in (
            (theirs.NoCredentialsError(), "environment", "no AWS credentials were found: "),
            (
                theirs.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
                "environment",
                "the AWS credentials are incomplete: AWS_SECRET_ACCESS_KEY is missing",
            ),
            (
                theirs.CredentialRetrievalError(provider="iam-role", error_msg="hunter2"),
                "environment",
                "the AWS credentials cannot be had from where they are kept ",
            ),
            (theirs.ProfileNotFound(profile="ops"), "environment", "the AWS profile ops "),
            (theirs.ConfigParseError(path="/x/config"), "environment", "the AWS configuration"),
            (
                theirs.ProxyConnectionError(proxy_url="http://user:hunter2@proxy:3128", error=own),
                "transient",
                "the proxy proxy:3128 cannot be asked: ProxyConnectionError",
            ),
            (
                theirs.ConnectTimeoutError(endpoint_url="https://s3.eu-west-1.amazonaws.com/x"),
                "transient",
                "s3.eu-west-1.amazonaws.com does not answer: no connection in time",
            ),
            (
                theirs.HTTPClientError(error=own),
                "transient",
                "s3.eu-west-1.amazonaws.com cannot be asked: HTTPClientError",
            ),
            (theirs.InvalidRegionError(region_name="x"), "environment", "'eu-west-1' is not the"),
            (theirs.ParamValidationError(report="hunter2"), "refused", "botocore does not accept"),
            (
                theirs.ParamValidationError(report="Invalid bucket name"),
                "environment",
                "botocore does not accept the request for bucket logs",
            ),
            (OSError(101, "Network is unreachable"), "transient", f"{access.host} cannot be reach"),
            (ResponseParserError("hunter2"), "transient", f"what answers at {access.host} is not"),
            (ValueError("hunter2"), "environment", "botocore cannot use the endpoint "),
            (ImportError("hunter2"), "environment", "botocore cannot be imported (ImportError)"),
            (RuntimeError("hunter2"), "environment", f"botocore cannot ask {access.host} (Runtim"),
        ):
            with self.subTest(error=type(error).__name__):
                explained = explain(error, access)
                self.assertEqual(explained.kind, kind)
                self.assertTrue(str(explained).startswith(words), str(explained))
                self.assertNotIn("hunter2", str(explained))

"""Secrets at rest: nothing without the key, and the key for nobody but its owner."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

from cryptography.fernet import Fernet
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.vault import ENVIRONMENT_NAME, Vault, VaultError, _create

SECRET = "a-secret-that-nobody-may-see-é\u2028"


class VaultTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.path = self.folder / "state" / "hub.key"

    def refused(self, words: str, environ: dict[str, str] | None = None) -> None:
        with self.assertRaises(VaultError) as caught:
            Vault.load(str(self.path), environ or {}).ensure_key(secrets_exist=False)
        self.assertIn(words, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def load(self) -> Vault:
        """As at the first start."""
        vault = Vault.load(str(self.path), {})
        vault.ensure_key(secrets_exist=False)
        return vault

    def test_no_new_key_where_there_are_secrets(self) -> None:
        """They could never be opened with it; and whoever has a backup must see what is wrong."""
        vault = Vault.load(str(self.path), {})
        for use in (
            lambda: vault.ensure_key(secrets_exist=True),
            lambda: vault.open(b"sealed"),
        ):
            with self.assertRaises(VaultError) as caught:
                use()
            self.assertEqual(
                str(caught.exception),
                f"{self.path} is missing: put back the one from your backup",
            )
        self.assertRaises(VaultError, vault.seal, SECRET)
        self.assertFalse(self.path.parent.exists())
        key = Fernet.generate_key().decode()
        Vault.load(str(self.path), {ENVIRONMENT_NAME: key}).ensure_key(secrets_exist=True)

    def test_what_is_sealed_opens_and_shows_nothing(self) -> None:
        vault = Vault(Fernet.generate_key())
        sealed = vault.seal(SECRET)
        self.assertEqual(vault.open(sealed), SECRET)
        self.assertNotIn(SECRET.encode(), base64.urlsafe_b64decode(sealed))
        self.assertNotEqual(vault.seal(SECRET), sealed)
        self.assertEqual(repr(vault), "<Vault with the key>")

    def test_another_key_opens_nothing(self) -> None:
        sealed = Vault(Fernet.generate_key()).seal(SECRET)
        vault = self.load()
        for wrong in (sealed, sealed[:-4] + b"AAAA", b"", b"\xff not base64"):
            with self.assertRaises(VaultError) as caught:
                vault.open(wrong)
            self.assertEqual(
                str(caught.exception),
                f"{self.path} is not the key that the stored secrets were encrypted with",
            )
            self.assertIsNone(caught.exception.__context__)

    def test_text_that_cannot_be_carried(self) -> None:
        with self.assertRaises(VaultError) as caught:
            Vault(Fernet.generate_key()).seal("hidden\ud800")
        self.assertNotIn("hidden", str(caught.exception))
        self.assertTrue(caught.exception.__suppress_context__)

    def test_the_first_start_makes_a_key_for_the_owner_alone(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        first = self.load()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.path.parent.stat().st_mode), 0o700)
        self.assertEqual(os.listdir(self.path.parent), ["hub.key"])
        content = self.path.read_bytes()
        self.assertEqual(Vault.load(str(self.path), {}).open(first.seal(SECRET)), SECRET)
        self.assertEqual(self.path.read_bytes(), content)

    def test_a_umask_does_not_lock_the_owner_out(self) -> None:
        self.path.parent.mkdir(parents=True)
        self.addCleanup(os.umask, os.umask(0o777))
        self.load()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_of_two_that_make_a_key_the_first_counts(self) -> None:
        vault = self.load()
        _create(str(self.path))
        self.assertEqual(Vault.load(str(self.path), {}).open(vault.seal(SECRET)), SECRET)
        self.assertEqual(os.listdir(self.path.parent), ["hub.key"])

    def test_a_key_that_others_may_read_is_refused(self) -> None:
        self.load()
        for mode in (0o640, 0o604, 0o620, 0o601):
            self.path.chmod(mode)
            self.refused(f"(mode {mode:04o}): chmod 600 {self.path}")
        self.path.chmod(0o400)
        Vault.load(str(self.path), {})

    def test_a_file_that_holds_no_key(self) -> None:
        self.path.parent.mkdir(parents=True)
        for content in (b"", b"not a key", b"\xff" * 44, base64.b64encode(b"short")):
            self.path.write_bytes(content)
            self.path.chmod(0o600)
            self.refused(f"{self.path} holds no key")
            self.assertEqual(self.path.read_bytes(), content)

    def test_a_place_where_no_file_can_be(self) -> None:
        self.path.mkdir(parents=True, mode=0o700)
        self.refused(f"{self.path}: ")
        self.path.rmdir()
        os.mkfifo(self.path, 0o600)
        self.refused("Not a regular file")
        self.path.unlink()
        self.path.parent.rmdir()
        self.path.parent.write_text("a file")
        self.refused(f"{self.path}: ")

    def test_the_environment_goes_first(self) -> None:
        key = Fernet.generate_key().decode()
        vault = Vault.load(str(self.path), {ENVIRONMENT_NAME: f" {key}\n"})
        self.assertEqual(Vault(key.encode()).open(vault.seal(SECRET)), SECRET)
        self.assertFalse(self.path.exists())
        self.refused(f"{ENVIRONMENT_NAME} holds no key", {ENVIRONMENT_NAME: "typed-wrong-é"})
        Vault.load(str(self.path), {ENVIRONMENT_NAME: ""}).ensure_key(secrets_exist=False)
        self.assertTrue(self.path.exists())

    def test_without_the_library_one_line_says_what_to_install(self) -> None:
        program = (
            "import sys; sys.modules['cryptography.fernet'] = None\n"
            "from jetcamer.hub.vault import Vault, VaultError\n"
            "try:\n Vault(b'')\nexcept VaultError as error:\n print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
        )
        self.assertEqual(
            done.stdout,
            "the hub needs the package cryptography: pip install 'jetcamer[hub]'\n",
        )

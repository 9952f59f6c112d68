"""What a user installs: the wheel, the editable checkout, the bare checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support.tools import ROOT


def run(*command: str | Path, cwd: str | Path, **environ: str) -> str:
    """Its output; fails the test with that output when the exit status is not 0."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


#: Plugins that are there beside ours: the folders of both must be found, and each costs time.
PLUGINS = ("__init__.py", "twisted_core.py", "twisted_reactors.py", "twisted_inet.py")


class PackagingTests(SynchronousTestCase):
    """Builds without a network: setuptools and the libraries are those of this interpreter."""

    def test_what_is_built_and_installed(self) -> None:
        """One after the other, since building takes longest."""
        if not (ROOT / "setup.py").exists():
            raise SkipTest("not run from a checkout")
        self.folder = Path(self.mktemp()).absolute()
        source, wheel, sdist, editable = self.build(self.folder)
        self.check_wheel(wheel)
        self.check_source_distribution(sdist)
        self.check_wheel_install(wheel)
        self.check_editable_install(editable)
        self.check_checkout(source)

    def build(self, folder: Path) -> tuple[Path, Path, Path, Path]:
        """A copy of what git would give a user, so that a build leaves nothing in the checkout."""
        source = folder / "source"
        listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT).split("\0")
        for name in filter(None, listed):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes((ROOT / name).read_bytes())
        build = (
            "from setuptools import build_meta as b;"
            "b.build_wheel('../dist'); b.build_sdist('../dist');"
            "b.build_editable('../editable')"  # as `pip install --editable` has it built
        )
        run(sys.executable, "-c", build, cwd=source)
        (wheel,) = (folder / "dist").glob("*.whl")
        (sdist,) = (folder / "dist").glob("*.tar.gz")
        (editable,) = (folder / "editable").glob("*.whl")
        return source, wheel, sdist, editable

    def environment(self, name: str, wheel: Path | None = None) -> Path:
        """A virtual environment that sees our libraries but not our checkout."""
        venv = self.folder / name
        run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=self.folder)
        (site,) = venv.glob("lib/python*/site-packages")
        libraries = Path(sys.prefix, *site.relative_to(venv).parts)
        # A .pth would also run the editable install's; plain links to each library do not.
        for library in libraries.iterdir():
            if "jetcamer" not in library.name and not library.name.endswith(".pth"):
                (site / library.name).symlink_to(library)
        # Twisted's own folder of plugins must be a real one: ours is merged into it.
        (site / "twisted").unlink()
        (site / "twisted").mkdir()
        for child in (libraries / "twisted").iterdir():
            if child.name != "plugins":
                (site / "twisted" / child.name).symlink_to(child)
        (site / "twisted" / "plugins").mkdir()
        for child in (libraries / "twisted" / "plugins").iterdir():
            if child.name in PLUGINS:
                (site / "twisted" / "plugins" / child.name).symlink_to(child)
        if wheel is not None:
            run(
                venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps",
                "--no-index", "--no-compile", "--disable-pip-version-check", wheel,
                cwd=self.folder,
            )  # fmt: skip
        return venv / "bin" / "python"

    def assert_listed(self, python: str | Path, cwd: Path, **environ: str) -> None:
        twistd = "from twisted.scripts.twistd import run; run()"
        listing = run(python, "-c", twistd, "--help", cwd=cwd, **environ)
        self.assertRegex(listing, r"(?m)^ +jetcamer +The JetCamer agent")

    def check_wheel(self, wheel: Path) -> None:
        """It carries the plugin, and nothing that shadows Twisted."""
        names = zipfile.ZipFile(wheel).namelist()
        self.assertIn("twisted/plugins/jetcamer_plugin.py", names)
        self.assertIn("jetcamer/agent/service.py", names)
        self.assertIn("jetcamer/py.typed", names)
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        self.assertEqual([name for name in names if name.startswith(("tests/", "benchmarks/"))], [])

    def check_source_distribution(self, sdist: Path) -> None:
        """It carries what a packager needs."""
        with tarfile.open(sdist) as archive:
            names = {name.split("/", 1)[-1] for name in archive.getnames()}
        for name in (
            "LICENSE", "CHANGELOG.md", "README.md", "Makefile", "tox.ini",
            "etc/agent.config.json", "etc/jetcamer-agent.service", "scripts/debug-websocket.sh",
            "tests/test_imports.py", "docs/architecture.md", "twisted/plugins/jetcamer_plugin.py",
        ):  # fmt: skip
            self.assertIn(name, names)

    def check_wheel_install(self, wheel: Path) -> None:
        python = self.environment("wheel", wheel)
        self.assert_listed(python, self.folder)
        self.assertIn("jetcamer", run(python, "-m", "twisted", "--help", cwd=self.folder))
        script = python.parent / "jetcamer"
        self.assertIn("5.", run(script, "--version", cwd=self.folder))

    def check_editable_install(self, wheel: Path) -> None:
        python = self.environment("editable-install", wheel)
        code = "import jetcamer; print(jetcamer.__file__)"
        self.assertIn("/source/jetcamer/", run(python, "-c", code, cwd=self.folder))
        self.assert_listed(python, self.folder)

    def check_checkout(self, source: Path) -> None:
        """Without an installation, from the checkout's folder."""
        python = self.environment("checkout")
        with self.assertRaises(AssertionError):
            run(python, "-c", "import jetcamer", cwd=self.folder)
        self.assert_listed(python, source, PYTHONPATH=str(source))

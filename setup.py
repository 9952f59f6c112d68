"""Packaging metadata. The version lives in ``jetcamer/__init__.py`` alone."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "jetcamer" / "__init__.py").read_text("utf-8"), re.MULTILINE
)
assert VERSION is not None, "jetcamer/__init__.py carries no __version__"

setup(
    name="jetcamer",
    version=VERSION.group(1),
    description="An agent for Linux servers: one outbound, signed WebSocket to the hub of a fleet",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Monitoring",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # The explicit root keeps `pip install -e .` from hiding the plugin behind an import hook.
    package_dir={"": "."},
    # `twisted.plugins` is a folder without __init__.py that Twisted merges into its own package.
    packages=[*find_packages(include=["jetcamer", "jetcamer.*"]), "twisted.plugins"],
    package_data={"jetcamer": ["py.typed"]},
    install_requires=[
        "twisted>=26.10.0",
        "autobahn>=26.10.2",
        "automat>=24.8.0",  # Twisted's own dependency, named because the link is built on it
        "msgspec>=0.19",
        "psutil>=6.0",
        "pyopenssl>=24.3",
        "service-identity>=24.2",
        "treq>=24.9",
    ],
    extras_require={
        "hub": [
            "cryptography>=44",  # secrets at rest (Fernet)
            "prometheus-client>=0.21",
            "rich>=13.9",  # the tables of `jetcamer hub`
            "websockets>=14",  # its C routine that unmasks frames, and nothing else of it
        ],
        "s3": ["botocore>=1.36"],
        "dev": [
            "coverage>=7.6",
            "cryptography>=44",  # makes certificates of every kind, bad ones too
            "flask>=3.0",  # moto's server needs no more than these two of what its extra brings
            "flask-cors>=5.0",
            "hypothesis>=6.120",
            "moto[s3]>=5.0",  # the S3 that the archive is tested against
            "mypy>=1.14",
            "mypy-zope>=1.0.9",
            "pip>=22.3",  # the tests install what they build
            "ruff>=0.9",
            "schemathesis>=4.0",  # holds the hub's API against its OpenAPI document
            "setuptools>=77",
            "tox>=4.23",
            "types-psutil",
            "types-setuptools",
        ],
    },
    entry_points={"console_scripts": ["jetcamer = jetcamer.cli:main"]},
    zip_safe=False,
)

"""Which machine this is. In: a file of the operating system. Out: its text, or an ``OSError``."""

from __future__ import annotations

import errno

MACHINE_ID = "/etc/machine-id"


def read_machine_id(path: str = MACHINE_ID) -> str:
    """The machine id, trimmed.

    :raises OSError: the file cannot be read, is empty, or is not filled in yet (machine-id(5)).
    """
    with open(path, encoding="ascii", errors="replace") as file:
        machine_id = file.read(256).strip()
    if machine_id in ("", "uninitialized"):
        raise OSError(errno.ENODATA, "The file holds no machine id", path)
    return machine_id

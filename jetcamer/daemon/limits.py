"""How many files the process may have open.

In: a number. Out: the soft limit, raised as far as the hard one lets it. Must never lower it.
"""

from __future__ import annotations


def raise_file_limit(wanted: int = 65536) -> int:
    """The number of file descriptors there may be from now on; `wanted`, or as many as there may
    be. Services begin with 1024, which a `select` of theirs could not go beyond; ours has none."""
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

    soft, hard = getrlimit(RLIMIT_NOFILE)
    if soft == RLIM_INFINITY:
        return wanted
    if hard != RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        try:
            setrlimit(RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
        return wanted
    return soft

"""The processors that this process may use."""

import os


def usable() -> int:
    """Count the processors that this process may use, which a scheduler may have bound to a few.

    >>> 1 <= usable() <= os.cpu_count()
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone tells
    return len(affinity(0)) if affinity else os.cpu_count() or 1

"""Keep freed memory in the process: what a step frees, the next one takes again."""

import ctypes
import platform

import jax

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # of mallopt(3)


def keep_freed() -> None:
    """Tell glibc to keep freed memory, where arrays are on CPUs.

    Every step on a CPU takes its temporary arrays from the system and gives them back: zeroed
    pages and page faults, an eighth of a step of MiniLM (docs/performance.md). From one heap that
    is never trimmed they are taken once, though at worst twice the memory is held. Elsewhere, or
    without glibc, this does nothing.
    """
    if jax.default_backend() == "cpu" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, value)

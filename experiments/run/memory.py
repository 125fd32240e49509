"""Keep freed memory in the process: what a step frees, the next one takes again."""

import ctypes
import platform

# M_ARENA_MAX, M_MMAP_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of mallopt(3), to give back and to
# keep. Setting any of them ends the growth of glibc's thresholds, so they are set to its end.
_MALLOPT = {-8: (0, 1), -4: (65536, 0), -3: (32 << 20, 32 << 20), -1: (64 << 20, 2**31 - 1)}


def keep_freed(keep: bool = True) -> None:
    """Tell glibc to keep freed memory, or to give large blocks back as it does by itself.

    Every step on a CPU takes its temporary arrays from the system and gives them back: zeroed
    pages and page faults, an eighth of a step of MiniLM (docs/performance.md). From one heap that
    is never trimmed they are taken once, though at worst twice the memory is held. It has to be
    said before JAX starts its threads. Without glibc this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for option, values in _MALLOPT.items():
            mallopt(option, values[keep])

"""XLA's compiler for TPUs on a machine without one, and what the chips can do."""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Chip(NamedTuple):
    """A chip as Google publishes it: cloud.google.com/tpu/docs/v5e, /v5p and /v6e."""

    teraflops: float  # bfloat16
    gibibytes: float  # of HBM
    hbm: float  # GB/s
    ici: float  # GB/s that it sends to its neighbors; half of the published "bidirectional"


CHIPS = {
    "v5e": Chip(197.0, 16.0, 819.0, 200.0),
    "v5p": Chip(459.0, 95.0, 2765.0, 600.0),
    "v6e": Chip(918.0, 32.0, 1600.0, 400.0),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology.

    >>> chip_of("v5e:4x4").teraflops
    197.0

    Raises:
      ValueError: it is not known here.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(f"the chip {name!r} of {topology!r} is unknown; give {', '.join(CHIPS)}")
    return CHIPS[name]


def installed_libtpu() -> Path | None:
    """The compiler of an installed jax[tpu], or the one that TPU_LIBRARY_PATH names."""
    named = os.environ.get("TPU_LIBRARY_PATH")
    found = None if named else importlib.util.find_spec("libtpu")
    if found is not None and found.origin is not None:
        named = str(Path(found.origin).parent / "libtpu.so")
    return Path(named) if named else None


def use(libtpu: Path) -> None:
    """Make this process compile with a libtpu.so; to be called before JAX looks for one."""
    import jax

    jax.config.update(
        "jax_enable_compilation_cache", False
    )  # a program without its TPU is not kept
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_LIBRARY_PATH": str(libtpu.resolve()),
    }


def devices(topology: str) -> Sequence[Any]:
    """The devices of a slice that is not there.

    Raises:
      ValueError: the compiler knows no such slice.
    """
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"there is no slice {topology!r} ({why}); give one as v5e:4x4") from error


def version_of(libtpu: Path) -> str | None:
    """The version of the package that a libtpu.so was unpacked with, where that is known."""
    found = [*libtpu.resolve().parent.parent.glob("libtpu-*.dist-info")]
    return found[0].name.split("-")[1].removesuffix(".dist") if found else None


def needed_of(error: Exception) -> str | None:
    """What a program needs of what there is, if that is why the compiler refused it.

    >>> needed_of(Exception("total memory required (45.24G) exceeds available HBM (15.75G)."))
    '45.24 of 15.75 GiB'
    """
    size = r"([\d.]+)([MGT])"
    found = re.search(rf"\({size}\) exceeds available HBM \({size}\)", str(error))
    found = found or re.search(rf"Used {size} of {size} hbm", str(error))
    if found is None:
        return None
    used, there = (
        float(found[i]) * {"M": 2**-10, "G": 1, "T": 2**10}[found[i + 1]] for i in (1, 3)
    )
    return f"{used:.2f} of {there:.2f} GiB"

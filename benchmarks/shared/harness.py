"""Time contenders in turn, measure memory in a process of its own, and write the record.

A contender is a function without arguments. All of them run in one process, in turn
(A B C A B C ...), so that whatever slows the machine slows everyone; medians are reported.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
REST = 0.3  # seconds before each call, in which the other library's threads stop spinning
PACKAGES_OF = {"contrastive_jax": ("jax",), "lightly": ("torch", "lightly")}
Step = Callable[[], object]
_DECLARED: list[Any] = []  # operators last as long as what declared them


def parse(
    parser: argparse.ArgumentParser, words: Sequence[str] | None = None, **smoke: Any
) -> argparse.Namespace:
    """Parse the command line, or these words of it.

    `--smoke` brings other defaults: little work, and a file that no table is made from.
    """
    parser.add_argument("--smoke", action="store_true", help="a try on little work, no figure")
    if parser.parse_known_args(words)[0].smoke:
        elsewhere = Path(tempfile.gettempdir()) / parser.get_default("out").name
        parser.set_defaults(**smoke, out=elsewhere)
    return parser.parse_args(words)


def split_installed(contenders: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Split contenders into those that can run here and why the others are skipped.

    The first word of a contender is its library.

    >>> split_installed(["contrastive_jax, Muon"])
    (['contrastive_jax, Muon'], {})
    """
    runnable, skipped = [], {}
    for name in contenders:
        library = re.match(r"\w+", name)[0]  # type: ignore
        packages = PACKAGES_OF.get(library, ("torch", library))
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            skipped[name] = f"{missing[0]} is not installed"
            print(f"{name} is skipped: {skipped[name]}", file=sys.stderr)
        else:
            runnable.append(name)
    return runnable, skipped


def import_torch() -> Any:
    """Import torch; a torchvision that lacks its compiled operators gets two of them declared."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
    except ImportError:
        pass  # a benchmark without it
    return torch


def take_turns(steps: Mapping[str, Step], rounds: int, rest: float = REST) -> dict[str, list]:
    """Time every contender once in each round; returns the seconds of each."""
    for step in steps.values():
        step()  # the first call is not timed
    seconds: dict[str, list] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            time.sleep(rest)
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def timing(seconds: list[float]) -> dict[str, Any]:
    """Summarize rounds by their median, the fastest and the slowest, and all of them."""
    spread = [min(seconds), max(seconds)]
    return {"seconds": statistics.median(seconds), "spread": spread, "rounds": seconds}


def in_own_process(module: str, *arguments: object) -> str:
    """Run a module in a new process of this Python; returns the last line that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return out.stdout.splitlines()[-1]


def risen_megabytes(step: Step, library: str = "jax") -> float:
    """Measure how far a call raises this process's resident set (Linux), or a GPU's memory.

    On a GPU it is the peak since the library started, less what it holds before the call.
    """
    import jax

    if jax.default_backend() != "cpu":
        return _risen_on_gpu(step, library) / 2**20
    restart_peak()
    before = resident_kilobytes("VmRSS")
    step()
    return (resident_kilobytes("VmHWM") - before) / 1024


def _risen_on_gpu(step: Step, library: str) -> int:
    if library == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    import jax

    device = jax.local_devices()[0]
    before = device.memory_stats()["bytes_in_use"]
    step()
    return device.memory_stats()["peak_bytes_in_use"] - before


def restart_peak() -> None:
    """Reset the peak of the resident set, VmHWM, to what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_kilobytes(field: str) -> int:
    """Read a field of the memory status of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))


def matmul_gigaflops(rounds: int = 5, n: int = 2048, dtype: str = "float32") -> float:
    """Measure the machine's rate at a large matrix product under JAX: the ceiling of a run."""
    import jax
    import jax.numpy as jnp

    a = jnp.asarray(np.random.default_rng(0).normal(size=(n, n)).astype(np.float32), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds) / 1e9


def circumstances(packages: Iterable[str]) -> dict[str, Any]:
    """Record device, versions and commit of a measurement."""
    import jax

    return {
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in packages},
    }


def commit() -> str:
    """Read the commit of this checkout."""
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return head.stdout.strip()


def processor() -> str:
    """Read the model of the CPU, as Linux or else Python names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    """Find the version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {path}")

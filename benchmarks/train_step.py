"""Time the whole SimCLR step against PyTorch loops, and its parts.

    python -m benchmarks.train_step --data_dir DIR                        # two CPU cores
    python -m benchmarks.train_step --works resnet18 --batch_size 512 --dtype bfloat16 \\
        --out benchmarks/results/train_step_gpu.json                      # one GPU
    python -m benchmarks.train_step --smoke    # a try

Every contender trains the same network (its number of parameters is compared) on batches of the
same size, with two views of the same size and precision. Each runs in a process of its own, and
the processes take turns (A B C A B C ...): nobody's threads or prefetching worker processes run
beside another. Within its turn a contender does a few steps that are not timed, then --steps that
are; the parts are timed in the first round. A large matrix product under JAX takes its turn as
well: its best rate is the ceiling. The images are CIFAR-10's, else random.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import harness, work

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "lightly", "pillow")
SEPARATE = "contrastive_jax, views separately"  # a call of the encoder for each view
MODULE = "benchmarks.train_step"
CEILING = "matrix product"
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def contenders(workers: list[int]) -> list[str]:
    return ["contrastive_jax", SEPARATE, "torch", *(f"lightly, {n} workers" for n in workers)]


def make(name: str, config: Any, images: np.ndarray) -> work.Contender:
    if name in ("contrastive_jax", SEPARATE):
        from benchmarks.shared import simclr_jax

        config.loss.views_separately = name == SEPARATE
        return simclr_jax.contender(config, images)
    import torch

    from benchmarks.peers import simclr_torch

    torch.set_num_threads(os.cpu_count() or 1)
    if name == "torch":
        return simclr_torch.plain(config, images)
    return simclr_torch.lightly(config, images, workers=int(name.split()[1]))


def measure(turn: dict[str, Any]) -> dict[str, Any]:
    """Measure one turn of one contender, in this process."""
    if turn["contender"] == CEILING:
        rate = harness.matmul_gigaflops(n=turn["matmul"], dtype=turn["dtype"])
        return {"gigaflops": rate}
    config = work.config(turn["work"], turn["batch_size"], turn["dtype"])
    images = np.load(turn["images"], mmap_mode="c", allow_pickle=False)
    contender = make(turn["contender"], config, images)
    for _ in range(turn["warm_up"]):
        contender.step()
    contender.wait()
    harness.restart_peak()
    seconds = []
    for _ in range(turn["repeats"]):
        start = time.perf_counter()
        for _ in range(turn["steps"]):
            contender.step()
        contender.wait()
        seconds.append((time.perf_counter() - start) / turn["steps"])
    return {
        "seconds": seconds,
        "megabytes": harness.resident_kilobytes("VmHWM") / 1024,
        "device_megabytes": device_megabytes(turn["contender"]),
        "parts": parts(contender) if turn["parts"] else None,
        "parameters": contender.parameters,
        "includes": contender.includes,
    }


def parts(contender: work.Contender, rounds: int = 3) -> dict[str, float]:
    """Measure the median seconds of each part alone."""
    seconds = harness.take_turns(contender.parts(), rounds, rest=0.0)
    return {name: statistics.median(times) for name, times in seconds.items()}


def device_megabytes(contender: str) -> float | None:
    """Read the peak on the accelerator, where there is one."""
    if contender in ("contrastive_jax", SEPARATE):
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    else:
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return None if peak is None else peak / 2**20


def run(args: argparse.Namespace) -> dict[str, Any]:
    names, skipped = harness.split_installed(contenders(args.workers))
    turns: dict[tuple[str, str], list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path, source = work.save_images(folder, args.data_dir, args.images)
        for name in args.works:
            for round_number in range(args.rounds):
                for contender in [CEILING, *names]:
                    turn = settings(name, contender, str(path), round_number == 0, args)
                    line = harness.in_own_process(MODULE, "--turn", json.dumps(turn))
                    turns.setdefault((name, contender), []).append(json.loads(line))
                    print(f"{name}, round {round_number + 1}: {contender}", flush=True)
                require_equal_networks(name, {c: turns[name, c][0]["parameters"] for c in names})
    rates = [t["gigaflops"] for name in args.works for t in turns.pop((name, CEILING))]
    rows = [row(*key, done, max(rates), args) for key, done in turns.items()]
    return {
        **harness.circumstances(PACKAGES),
        "matmul_gigaflops": max(rates),
        "matmul_rounds": rates,
        "protocol": protocol(args, source),
        "skipped": skipped,
        "rows": rows,
    }


def settings(
    name: str, contender: str, images: str, parts: bool, args: argparse.Namespace
) -> dict[str, Any]:
    """Collect the settings of one turn, ready for JSON."""
    return {
        "work": name,
        "contender": contender,
        "images": images,
        "batch_size": args.batch_size,
        "dtype": args.dtype,
        "matmul": args.matmul or {"float32": 2048, "bfloat16": 8192}[args.dtype],
        "warm_up": max(work.WARM_UP[name], args.warm_up),
        "steps": args.steps or work.STEPS[name],
        "repeats": args.repeats,
        "parts": parts,
    }


def row(
    name: str, contender: str, turns: list[dict], ceiling: float, args: argparse.Namespace
) -> dict[str, Any]:
    config = work.config(name, args.batch_size, args.dtype)
    timing = harness.timing([s for turn in turns for s in turn["seconds"]])
    gigaflops = work.step_flops(config) / timing["seconds"] / 1e9
    device_peaks = [turn["device_megabytes"] for turn in turns if turn["device_megabytes"]]
    found = {
        "work": name,
        "contender": contender,
        "batch_size": config.data.batch_size,
        **timing,
        "images_per_second": config.data.batch_size / timing["seconds"],
        "gigaflops": gigaflops,
        "fraction_of_matmul": gigaflops / ceiling,
        "megabytes": max(turn["megabytes"] for turn in turns),
        "device_megabytes": max(device_peaks, default=None),
        **{key: turns[0][key] for key in ("parts", "parameters", "includes")},
    }
    print(
        "{work:9s} {contender:20s} {seconds:8.3f} s {images_per_second:9.1f} img/s".format(**found)
    )
    return found


def require_equal_networks(name: str, parameters: dict[str, dict[str, int]]) -> None:
    if len({json.dumps(count) for count in parameters.values()}) > 1:
        raise SystemExit(f"{name}: the contenders train different networks: {parameters}")


def protocol(args: argparse.Namespace, source: str) -> dict[str, Any]:
    return {
        "what": "seconds of a step: mean over `steps` in a row, once for each of `repeats`",
        "rounds": args.rounds,
        "repeats": args.repeats,
        "steps": {n: args.steps or work.STEPS[n] for n in args.works},
        "warm_up_steps": {n: max(work.WARM_UP[n], args.warm_up) for n in args.works},
        "turns": "a process each, in turn; `rounds` of a row holds every repeat of every turn",
        "images": f"{source}, {args.images}",
        "configs": {n: f"configs/cifar.py:{work.PRESETS[n]}" for n in args.works},
        "dtype": args.dtype,
        "huge_pages": args.huge_pages,
        "gigaflops": "3 x the forward products of encoder and head, by shapes, over the seconds",
        "megabytes": "peak resident set of the main process while it trains, libraries included; "
        "a loader's workers are not counted",
        "parts": "median seconds of each part alone; those of lightly are the plain loop's",
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", nargs="+", default=["resnet18", "cpu"], choices=work.PRESETS)
    parser.add_argument("--batch_size", type=int, help="default: 128 for resnet18, 256 for cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="of lightly's loader"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, help="default: 2 for resnet18, 20 for cpu")
    parser.add_argument("--warm_up", type=int, default=0, help="at least so many steps")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--matmul", type=int, help="side of the matrices of the ceiling")
    parser.add_argument(
        "--huge_pages", action="store_true", help="every contender under glibc's huge pages"
    )
    parser.add_argument("--data_dir", help="of prepared CIFAR-10; default: TFDS_DATA_DIR")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "train_step_cpu.json")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    return harness.parse(parser, works=["smoke"], workers=[0], images=2000, rounds=1, repeats=1)


def main() -> None:
    args = parse()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared in turn
    if args.huge_pages:
        os.environ["GLIBC_TUNABLES"] = HUGE_PAGES  # read when a process starts: each turn is one
    if args.turn:
        print(json.dumps(measure(json.loads(args.turn))))
    else:
        harness.write(args.out, run(args))


if __name__ == "__main__":
    main()

"""The README's table of performance, from the files under benchmarks/results.

    python benchmarks/table.py

A claim whose file is not there says "not measured". A ratio above 1 is in our favour, against a
peer as against a limit; against a matrix product it is our share of that rate.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from harness import RESULTS

HEAD = ("claim", "ours", "best peer or limit", "ratio", "evidence")
Figures = tuple[str, str, float]  # ours, the other, and the ratio in our favour


class Claim(NamedTuple):
    """A row: what is claimed, the file that it is read from, and how it is read."""

    text: str
    file: str
    read: Callable[[dict[str, Any]], Figures]


def faster_step(work: str, peers: str) -> Callable[[dict[str, Any]], Figures]:
    """Images per second of the whole step against the best contender whose name begins so."""

    def read(result: dict[str, Any]) -> Figures:
        rows = [row for row in result["rows"] if row["work"] == work]
        return best(rows, peers, "images_per_second", "img/s")

    return read


def faster_views(result: dict[str, Any]) -> Figures:
    return best(result["rows"], "torchvision", "views_per_second", "views/s")


def best(rows: list[dict[str, Any]], peers: str, quantity: str, unit: str) -> Figures:
    """Ours against the largest of the peers."""
    ours = next(row[quantity] for row in rows if row["contender"] == "contrastive_jax")
    others = {r["contender"]: r[quantity] for r in rows if r["contender"] != "contrastive_jax"}
    name = max((n for n in others if n.startswith(peers)), key=others.__getitem__)
    return amount(ours, unit), f"{name}: {amount(others[name], unit)}", ours / others[name]


def share_of_matmul(work: str) -> Callable[[dict[str, Any]], Figures]:
    """The rate of the step against that of a large matrix product in the same run."""

    def read(result: dict[str, Any]) -> Figures:
        rows = [r for r in result["rows"] if r["work"] == work]
        ours = next(r for r in rows if r["contender"] == "contrastive_jax")
        ceiling = f"matrix product: {amount(result['matmul_gigaflops'], 'GFLOP/s')}"
        return amount(ours["gigaflops"], "GFLOP/s"), ceiling, ours["share_of_matmul"]

    return read


def quick_import(result: dict[str, Any]) -> Figures:
    rows = {row["import"]: row["beyond_jax"] for row in result["imports"]}
    return below(rows["contrastive_jax.losses"], 0.5)


def quick_first_step(start: str, limit: float) -> Callable[[dict[str, Any]], Figures]:
    def read(result: dict[str, Any]) -> Figures:
        rows = {row["start"]: row["seconds"] for row in result["first_step"]}
        return below(rows[start]["from process start"], limit)

    return read


def below(seconds: float, limit: float) -> Figures:
    return f"{seconds:.2f} s", f"limit {limit} s", limit / max(seconds, 0.01)


def quick_accuracy(limit: float | None) -> Callable[[dict[str, Any]], Figures]:
    """Seconds of training at the first look at which every seed had reached the target."""

    def read(result: dict[str, Any]) -> Figures:
        seconds = result["median_seconds_to_target"]
        if seconds is None:
            reached = f"{result['seeds_that_reached']} of {result['protocol']['seeds']} seeds"
            return f"not reached ({reached})", "", float("nan")
        ours = f"{seconds:.0f} s to {100 * result['protocol']['target']:.0f} %"
        if limit is None:
            return ours, "", float("nan")
        return ours, f"limit {limit:.0f} s", limit / seconds

    return read


def amount(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def step_claims(device: str, file: str, works: dict[str, str]) -> list[Claim]:
    """What is claimed of the training step on one device."""
    claims = []
    for work, name in works.items():
        for peer in ("torch", "lightly"):
            text = f"{device}: SimCLR step, {name}, against {peer}"
            claims.append(Claim(text, file, faster_step(work, peer)))
        text = f"{device}: rate of that step, {name}"
        claims.append(Claim(text, file, share_of_matmul(work)))
    return claims


CPU, GPU = "CPU", "GPU"
CLAIMS = [
    *step_claims(
        CPU, "train_step_cpu.json", {"resnet18": "ResNet-18 at batch 128", "cpu": "small encoder"}
    ),
    Claim(f"{CPU}: two views of CIFAR, against torchvision on PIL", "augment_cpu.json", faster_views),
    Claim(f"{CPU}: import of the losses beyond JAX", "startup_cpu.json", quick_import),
    Claim(f"{CPU}: digits' first step, cold", "startup_cpu.json", quick_first_step("cold", 8.0)),
    Claim(f"{CPU}: digits' first step, warm", "startup_cpu.json", quick_first_step("warm", 3.0)),
    Claim(
        f"{CPU}: training to a kNN accuracy, `cpu` preset",
        "time_to_accuracy_cpu.json",
        quick_accuracy(None),
    ),
    *step_claims(GPU, "train_step_gpu.json", {"resnet18": "ResNet-18 at batch 512, bfloat16"}),
    Claim(
        f"{GPU}: training to 90 % kNN, `fast` preset",
        "time_to_accuracy_gpu.json",
        quick_accuracy(600.0),
    ),
]


def cells(claim: Claim, folder: Path) -> list[str]:
    path = folder / claim.file
    if not path.exists():
        return [claim.text, "not measured", "", "", ""]
    ours, other, ratio = claim.read(json.loads(path.read_text()))
    link = f"[{claim.file}](benchmarks/results/{claim.file})"
    return [claim.text, ours, other, "" if ratio != ratio else f"{ratio:.2f}", link]


def table(folder: Path = RESULTS) -> str:
    """The rows as Markdown."""
    rows = [HEAD, *(cells(claim, folder) for claim in CLAIMS)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(HEAD) + "|", *lines[1:]])


if __name__ == "__main__":
    print(table())

"""The rows of docs/performance.md: each figure beside the best peer of the same run, or a limit.

A ratio above 1 is in our favor, against a peer as against a limit; against a matrix product it is
our fraction of that rate. A figure whose file is missing has no row.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HEAD = "figure | ours | beside it | ratio | wanted | verdict | evidence"
MISSED = "not reached ([tried](#what-was-tried))"
OURS, MUON = "contrastive_jax", "contrastive_jax, Muon"  # contenders of time_to_accuracy.py
# A contender of train_step.py, and its name in older files
SEPARATE = ("contrastive_jax, views separately", "contrastive_jax, views apart")
Result = dict[str, Any]


class Figures(NamedTuple):
    """Ours, what it is compared with, and the ratio in our favor."""

    ours: str
    other: str
    ratio: float


class Claim(NamedTuple):
    """A row: its text, the file it is read from, how, and the ratio that is wanted."""

    text: str
    file: str
    read: Callable[[Result], Figures | None]  # None where a result says nothing about it
    wanted: float | None


def faster_step(work: str, *peers: str) -> Callable[[Result], Figures | None]:
    """Images per second of the whole step against the best contender whose name starts so."""
    return lambda result: best(rows_of(result, work), peers, "images_per_second", "img/s")


def views_separately(work: str) -> Callable[[Result], Figures | None]:
    """Images per second of both views in one call against a call for each."""
    return faster_step(work, *SEPARATE)


def faster_views(result: Result) -> Figures | None:
    return best(result["rows"], ("torchvision",), "views_per_second", "views/s")


def faster_crops(workers: bool) -> Callable[[Result], Figures | None]:
    """Images per second and core of decoding and cropping on the host."""

    def read(result: Result) -> Figures | None:
        rows = [row for row in result["rows"] if bool(row["workers"]) is workers]
        rows = [{**row, "contender": row["name"]} for row in rows]
        return best(rows, ("torch",), "images_per_second_per_core", "img/s a core")

    return read


def best(rows: list[Result], peers: tuple[str, ...], quantity: str, unit: str) -> Figures | None:
    """Ours against the largest of the peers."""
    rates = {row["contender"]: row[quantity] for row in rows}
    others = [name for name in rates if name.startswith(peers)]
    if OURS not in rates or not others:
        return None
    ours, name = rates[OURS], max(others, key=rates.__getitem__)
    return Figures(amount(ours, unit), f"{name}: {amount(rates[name], unit)}", ours / rates[name])


def fraction_of_matmul(work: str) -> Callable[[Result], Figures | None]:
    """The rate of the step against that of a large matrix product in the same run."""

    def read(result: Result) -> Figures | None:
        ceiling = f"matrix product: {amount(result['matmul_gigaflops'], 'GFLOP/s')}"
        for row in rows_of(result, work):
            if row["contender"] == OURS:
                rate = amount(row["gigaflops"], "GFLOP/s")
                fraction = row.get("fraction_of_matmul", row.get("share_of_matmul"))  # older files
                return Figures(rate, ceiling, fraction)
        return None

    return read


def quick_import(result: Result) -> Figures:
    rows = {row["import"]: row["beyond_jax"] for row in result["imports"]}
    return below(rows["contrastive_jax.losses"], 0.5)


def quick_first_step(start: str, limit: float) -> Callable[[Result], Figures]:
    def read(result: Result) -> Figures:
        rows = {row["start"]: row["seconds"] for row in result["first_step"]}
        return below(rows[start]["from process start"], limit)

    return read


def below(seconds: float, limit: float) -> Figures:
    """Seconds against a limit; less than a tenth of it counts as a tenth, since that is noise."""
    return Figures(f"{seconds:.2f} s", f"limit {limit} s", limit / max(seconds, limit / 10))


def good_accuracy(limit: float) -> Callable[[Result], Figures]:
    """The median over seeds of the kNN accuracy after the last step."""

    def read(result: Result) -> Figures:
        ours = trained(result)[OURS]
        return Figures(described(ours), f"limit {limit:.0%}", ours["median_last_accuracy"] / limit)

    return read


def faster_training(result: Result) -> Figures | None:
    """Seconds of the whole schedule against the same in PyTorch, with the accuracy of each."""
    rows = trained(result)
    if "torch" not in rows:
        return None
    ours, peer = rows[OURS], rows["torch"]
    ratio = peer["median_last_seconds"] / ours["median_last_seconds"]
    return Figures(described(ours), f"torch: {described(peer)}", ratio)


def sooner_at_the_target(result: Result) -> Figures | None:
    """Seconds until the target accuracy was first measured: Muon against the recipe's SGD."""
    rows = trained(result)
    found = [rows.get(name, {}).get("median_seconds_to_target") for name in (MUON, OURS)]
    if None in found:
        return None
    muon, recipe = found
    target = f"{result['protocol']['target']:.0%}"
    return Figures(f"{target} in {muon:.0f} s", f"{target} in {recipe:.0f} s", recipe / muon)


def faster_probes(result: Result) -> Figures:
    """All strengths as one path against scikit-learn's fits one after another."""
    ours, peer = result["ours"]["seconds"], result["scikit-learn"]
    note = ", extrapolated" if peer["extrapolated"] else ""
    return Figures(f"{ours:.1f} s", f"scikit-learn: {peer['seconds']:.0f} s{note}", result["ratio"])


def of_the_plain_step(quantity: str, unit: str) -> Callable[[Result], Figures]:
    """A step in chunks and tiles against the plain one, by seconds or memory."""

    def read(result: Result) -> Figures:
        plain, chunks = (amount(row[quantity], unit) for row in result["rows"])
        return Figures(chunks, f"plain step: {plain}", 1 / result["ratios"][quantity])

    return read


def faster_folder(work: str, workers: bool) -> Callable[[Result], Figures | None]:
    """Images per second of a folder of JPEGs against the best torch loader."""

    def read(result: Result) -> Figures | None:
        rows = [row for row in rows_of(result, work) if bool(row["workers"]) is workers]
        rows = [{**row, "contender": row["name"]} for row in rows]
        return best(rows, ("torch",), "images_per_second", "img/s")

    return read


def of_texts(name: str) -> Callable[[Result], Figures | None]:
    """Seconds of a part of text_speed.py against those of the contender beside it."""

    def read(result: Result) -> Figures | None:
        if name not in result["measured"]:
            return None
        found = dict(result["measured"][name])
        ratio = found.pop("ratio")
        ours, other = (f"{each['seconds']:.2f} s" for each in found.values())
        return Figures(ours, f"{[*found][1]}: {other}", ratio)

    return read


def trained(result: Result) -> dict[str, Result]:
    """The rows of time_to_accuracy.py by contender."""
    return {row["contender"]: row for row in result["rows"]}


def described(row: Result) -> str:
    seeds = f"{len(row['runs'])} seed" + "s" * (len(row["runs"]) > 1)
    return f"{row['median_last_accuracy']:.1%} in {row['median_last_seconds']:.0f} s ({seeds})"


def rows_of(result: Result, work: str) -> list[Result]:
    return [row for row in result["rows"] if row["work"] == work]


def amount(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def step_claims(device: str, file: str, work: str, name: str, wanted: float) -> list[Claim]:
    """What is claimed of the training step of one network on one device."""
    lightly = 1.3 if device == "CPU" else None
    every = ("torch", "lightly")
    return [
        Claim(f"{device}: SimCLR step, {name}, torch", file, faster_step(work, *every), wanted),
        Claim(f"{device}: same, lightly's", file, faster_step(work, "lightly"), lightly),
        Claim(f"{device}: same, views encoded separately", file, views_separately(work), None),
        Claim(f"{device}: rate of that step", file, fraction_of_matmul(work), None),
    ]


STEP, HUGE_PAGES = "train_step_cpu.json", "train_step_cpu_huge_pages.json"
FOLDER, CHUNKS = "folder_loader.json", "chunked_step_cpu.json"
START, ACCURACY = "startup_cpu.json", "time_to_accuracy"
TEXTS = {  # parts of text_speed.py
    "encode, 32 tokens": 1.0,
    "encode, 64 tokens": 0.9,
    "encode, 128 tokens": 0.85,
    "end to end, 5000 texts": 1.0,
    "train step, 64 tokens": 0.85,
    "GradCache, 64 tokens": round(1 / 1.4, 2),
}
CLAIMS = [
    *step_claims("CPU", STEP, "resnet18", "ResNet-18 at batch 128", 1.0),
    *step_claims("CPU", STEP, "cpu", "small encoder at batch 256", 1.0),
    Claim("CPU: same, all in huge pages, torch", HUGE_PAGES, faster_step("cpu", "torch"), None),
    Claim("CPU: random views of CIFAR, torchvision on PIL", "augment_cpu.json", faster_views, 3.0),
    Claim("CPU: import of the losses, beyond JAX's", START, quick_import, 1.0),
    Claim("CPU: first step of the digits, cold", START, quick_first_step("cold", 8.0), 1.0),
    Claim("CPU: first step of the digits, warm", START, quick_first_step("warm", 3.0), 1.0),
    Claim("CPU: decode and crop on one core", "host_input.json", faster_crops(False), None),
    Claim("CPU: same with 2 workers", "host_input.json", faster_crops(True), None),
    Claim("CPU: crops of a folder, one core", FOLDER, faster_folder("crops", False), 0.9),
    Claim("CPU: same with 2 workers", FOLDER, faster_folder("crops", True), 0.9),
    Claim("CPU: a folder into memory, one core", FOLDER, faster_folder("centers", False), 0.9),
    Claim("CPU: same with 2 workers", FOLDER, faster_folder("centers", True), 0.9),
    Claim(
        "CPU: crops of a folder, 12 megapixels", FOLDER, faster_folder("large crops", False), 0.9
    ),
    Claim("CPU: same with 2 workers", FOLDER, faster_folder("large crops", True), 0.9),
    Claim("CPU: same into memory, one core", FOLDER, faster_folder("large centers", False), 0.9),
    Claim("CPU: same with 2 workers", FOLDER, faster_folder("large centers", True), 0.9),
    Claim(
        "CPU: step of 8,192 images in chunks and tiles, resident memory",
        CHUNKS,
        of_the_plain_step("risen_mb", "MB"),
        4.0,
    ),
    Claim("CPU: same, seconds", CHUNKS, of_the_plain_step("seconds", "s"), round(1 / 1.5, 2)),
    Claim("CPU: 45 logistic probes, 50,000 x 512", "probe_cpu.json", faster_probes, 10.0),
    *(
        Claim(f"CPU: MiniLM, {name}", "text_speed_cpu.json", of_texts(name), wanted)
        for name, wanted in TEXTS.items()
    ),
    Claim("CPU: kNN, `cpu` preset", f"{ACCURACY}_cpu.json", good_accuracy(0.48), 1.0),
    Claim("CPU: seconds of that training, torch", f"{ACCURACY}_cpu.json", faster_training, None),
    Claim("CPU: same with Muon", f"{ACCURACY}_cpu.json", sooner_at_the_target, None),
    *step_claims("GPU", "train_step_gpu.json", "resnet18", "ResNet-18, batch 512, bfloat16", 3.0),
    Claim("GPU: kNN after 100 epochs", f"{ACCURACY}_full_gpu.json", good_accuracy(0.83), 1.0),
    Claim("GPU: seconds of it, torch", f"{ACCURACY}_full_gpu.json", faster_training, None),
    Claim("GPU: kNN, `fast` preset", f"{ACCURACY}_gpu.json", good_accuracy(0.90), 1.0),
]


def rows(folder: Path) -> list[list[str]]:
    """A row for each claim whose file says something about it."""
    measured = [claim for claim in CLAIMS if (folder / claim.file).exists()]
    read = [
        (claim, claim.read(json.loads((folder / claim.file).read_text()))) for claim in measured
    ]
    return [cells(claim, figures) for claim, figures in read if figures is not None]


def cells(claim: Claim, figures: Figures) -> list[str]:
    wanted = "" if claim.wanted is None else str(claim.wanted)
    reached = "measured" if claim.wanted is None else "reached"
    verdict = reached if figures.ratio >= (claim.wanted or 0) else MISSED
    link = f"[{claim.file}](benchmarks/results/{claim.file})"
    return [claim.text, figures.ours, figures.other, f"{figures.ratio:.2f}", wanted, verdict, link]

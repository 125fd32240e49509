"""The README's table of performance, from the files under benchmarks/results.

    python benchmarks/table.py            # print it
    python benchmarks/table.py --write    # and put it into README.md

A ratio above 1 is in our favour, against a peer as against a limit; against a matrix product it is
our share of that rate. A claim whose file is not there says "not measured".
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from harness import RESULTS, ROOT

HEAD = ("figure", "ours", "beside it", "ratio", "wanted", "verdict", "evidence")
MARKS = (
    "<!-- performance: python benchmarks/table.py --write -->\n",
    "<!-- end of performance -->",
)
TRIED = "not reached ([tried](benchmarks/README.md#what-was-tried))"
TRAIN_IMAGES = 50_000  # of CIFAR-10
OURS, MUON = "contrastive_jax", "contrastive_jax, Muon"  # contenders of time_to_accuracy.py
APART = "contrastive_jax, views apart"  # a contender of train_step.py
Result = dict[str, Any]


class Figures(NamedTuple):
    """What was found: ours, what it is set against, and the ratio in our favour."""

    ours: str
    other: str
    ratio: float


class Claim(NamedTuple):
    """A row: what is claimed, the file it is read from, how, and the ratio that is wanted."""

    text: str
    file: str
    read: Callable[[Result], Figures | None]  # None where a result has nothing to say of it
    wanted: float | None


def faster_step(work: str, *peers: str) -> Callable[[Result], Figures | None]:
    """Images per second of the whole step against the best contender whose name begins so."""
    return lambda result: best(rows_of(result, work), peers, "images_per_second", "img/s")


def faster_views(result: Result) -> Figures | None:
    return best(result["rows"], ("torchvision",), "views_per_second", "views/s")


def best(rows: list[Result], peers: tuple[str, ...], quantity: str, unit: str) -> Figures | None:
    """Ours against the largest of the peers."""
    rates = {row["contender"]: row[quantity] for row in rows}
    others = [name for name in rates if name.startswith(peers)]
    if "contrastive_jax" not in rates or not others:
        return None
    ours, name = rates["contrastive_jax"], max(others, key=rates.__getitem__)
    return Figures(amount(ours, unit), f"{name}: {amount(rates[name], unit)}", ours / rates[name])


def share_of_matmul(work: str) -> Callable[[Result], Figures | None]:
    """The rate of the step against that of a large matrix product in the same run."""

    def read(result: Result) -> Figures | None:
        ours = own_row(result, work)
        ceiling = f"matrix product: {amount(result['matmul_gigaflops'], 'GFLOP/s')}"
        rate = ours and amount(ours["gigaflops"], "GFLOP/s")
        return rate and Figures(rate, ceiling, ours["share_of_matmul"])

    return read


def quick_epoch(work: str, limit: float) -> Callable[[Result], Figures | None]:
    """Seconds in which the steps see as many images as CIFAR-10 trains on."""

    def read(result: Result) -> Figures | None:
        ours = own_row(result, work)
        return ours and below(TRAIN_IMAGES / ours["images_per_second"], limit)

    return read


def cheap_views(work: str, limit: float) -> Callable[[Result], Figures | None]:
    """Gathering and augmenting both views, alone, as a share of the whole step."""

    def read(result: Result) -> Figures | None:
        ours = own_row(result, work)
        share = ours and ours["parts"]["gather and augment"] / ours["seconds"]
        return share and Figures(f"{share:.1%}", f"limit {limit:.0%}", limit / share)

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
    """A tenth of the limit counts as ten times, and so does less: that may be noise."""
    return Figures(f"{seconds:.2f} s", f"limit {limit} s", limit / max(seconds, limit / 10))


def good_accuracy(limit: float) -> Callable[[Result], Figures]:
    """The median over seeds of the kNN accuracy after the last step."""

    def read(result: Result) -> Figures:
        ours = trained(result)["contrastive_jax"]
        return Figures(in_words(ours), f"limit {limit:.0%}", ours["median_last_accuracy"] / limit)

    return read


def quicker_training(result: Result) -> Figures | None:
    """Seconds of the whole schedule against the same in PyTorch, with the accuracy of each."""
    rows = trained(result)
    if "torch" not in rows:
        return None
    ours, peer = rows["contrastive_jax"], rows["torch"]
    ratio = peer["median_last_seconds"] / ours["median_last_seconds"]
    return Figures(in_words(ours), f"torch: {in_words(peer)}", ratio)


def quicker_to_the_target(result: Result) -> Figures | None:
    """Seconds until the first look that found the target, with Muon against the recipe's SGD."""
    rows = trained(result)
    found = [rows.get(name, {}).get("median_seconds_to_target") for name in (MUON, OURS)]
    if None in found:
        return None
    muon, recipe = found
    target = f"{result['protocol']['target']:.0%}"
    return Figures(f"{target} in {muon:.0f} s", f"{target} in {recipe:.0f} s", recipe / muon)


def trained(result: Result) -> dict[str, Result]:
    """The rows of time_to_accuracy.py by contender."""
    return {row["contender"]: row for row in result["rows"]}


def in_words(row: Result) -> str:
    seeds = f"{len(row['runs'])} seed" + "s" * (len(row["runs"]) > 1)
    return f"{row['median_last_accuracy']:.1%} in {row['median_last_seconds']:.0f} s ({seeds})"


def quick_accuracy(limit: float) -> Callable[[Result], Figures]:
    """Seconds of the whole schedule, which count where its last accuracy is the target's."""

    def read(result: Result) -> Figures:
        ours, target = trained(result)["contrastive_jax"], result["protocol"]["target"]
        holds = ours["median_last_accuracy"] >= target
        ratio = limit / ours["median_last_seconds"] if holds else 0.0
        return Figures(in_words(ours), f"limit {target:.0%}, {limit:.0f} s", ratio)

    return read


def many_probes(result: Result) -> Figures:
    """All strengths as one path against scikit-learn's fits one after another."""
    ours, peer = result["ours"]["seconds"], result["scikit-learn"]
    note = ", extrapolated" if peer["extrapolated"] else ""
    return Figures(f"{ours:.1f} s", f"scikit-learn: {peer['seconds']:.0f} s{note}", result["ratio"])


def quick_crops(workers: bool) -> Callable[[Result], Figures | None]:
    """Images per second and core of the host's decoding and cropping, with workers or without."""

    def read(result: Result) -> Figures | None:
        rows = [row for row in result["rows"] if bool(row["workers"]) is workers]
        rows = [{**row, "contender": row["name"]} for row in rows]
        return best(rows, ("torch",), "images_per_second_per_core", "img/s a core")

    return read


def rows_of(result: Result, work: str) -> list[Result]:
    return [row for row in result["rows"] if row["work"] == work]


def own_row(result: Result, work: str) -> Result | None:
    rows = rows_of(result, work)
    return next((row for row in rows if row["contender"] == "contrastive_jax"), None)


def amount(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def step_claims(device: str, file: str, work: str, name: str, wanted: float) -> list[Claim]:
    """What is claimed of the training step of one network on one device."""
    every = ("torch", "lightly")
    lightly = 1.3 if device == "CPU" else None
    return [
        Claim(f"{device}: SimCLR step, {name}, torch", file, faster_step(work, *every), wanted),
        Claim(f"{device}: the same, lightly's", file, faster_step(work, "lightly"), lightly),
        Claim(f"{device}: the same, with views apart", file, faster_step(work, APART), None),
        Claim(f"{device}: rate of that step", file, share_of_matmul(work), None),
    ]


STEP_GPU, ACCURACY = "train_step_gpu.json", "time_to_accuracy"
HUGE_PAGES = "train_step_cpu_huge_pages.json"
CLAIMS = [
    *step_claims("CPU", "train_step_cpu.json", "resnet18", "ResNet-18 at batch 128", 1.0),
    *step_claims("CPU", "train_step_cpu.json", "cpu", "small encoder at batch 256", 1.0),
    Claim("CPU: the same, all in huge pages, torch", HUGE_PAGES, faster_step("cpu", "torch"), None),
    Claim(
        "CPU: random views of CIFAR, torchvision's on PIL", "augment_cpu.json", faster_views, 3.0
    ),
    Claim("CPU: import of the losses, beyond JAX's", "startup_cpu.json", quick_import, 1.0),
    Claim("CPU: digits' first step, cold", "startup_cpu.json", quick_first_step("cold", 8.0), 1.0),
    Claim("CPU: digits' first step, warm", "startup_cpu.json", quick_first_step("warm", 3.0), 1.0),
    Claim("CPU: decode and crop on one core", "host_input.json", quick_crops(False), None),
    Claim("CPU: the same with 2 workers", "host_input.json", quick_crops(True), None),
    Claim("CPU: 45 logistic probes, 50,000 x 512", "probe_cpu.json", many_probes, 10.0),
    Claim("CPU: kNN, `cpu` preset", f"{ACCURACY}_cpu.json", good_accuracy(0.48), 1.0),
    Claim("CPU: seconds of that training, torch", f"{ACCURACY}_cpu.json", quicker_training, None),
    Claim("CPU: the same with Muon", f"{ACCURACY}_cpu.json", quicker_to_the_target, None),
    *step_claims("GPU", STEP_GPU, "resnet18", "ResNet-18 at batch 512, bfloat16", 3.0),
    Claim("GPU: an epoch of two views, same step", STEP_GPU, quick_epoch("resnet18", 2.0), 1.0),
    Claim("GPU: both views' share of that step", STEP_GPU, cheap_views("resnet18", 0.1), 1.0),
    Claim("GPU: kNN after 100 epochs", f"{ACCURACY}_full_gpu.json", good_accuracy(0.83), 1.0),
    Claim("GPU: seconds of it, torch", f"{ACCURACY}_full_gpu.json", quicker_training, None),
    Claim("GPU: kNN of 90 %, `fast` preset", f"{ACCURACY}_gpu.json", quick_accuracy(600.0), 1.0),
]


def cells(claim: Claim, folder: Path) -> list[str]:
    path = folder / claim.file
    found = claim.read(json.loads(path.read_text())) if path.exists() else None
    wanted = "" if claim.wanted is None else f"{claim.wanted:.1f}"
    if found is None:
        return [claim.text, "", "", "", wanted, "not measured", ""]
    ours, other, ratio = found
    link = f"[{claim.file}](benchmarks/results/{claim.file})"
    return [claim.text, ours, other, f"{ratio:.2f}", wanted, verdict(ratio, claim.wanted), link]


def verdict(ratio: float, wanted: float | None) -> str:
    if wanted is None:
        return "measured"
    return "reached" if ratio >= wanted else TRIED


def table(folder: Path = RESULTS) -> str:
    """The rows as Markdown."""
    rows = [HEAD, *(cells(claim, folder) for claim in CLAIMS)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(HEAD) + "|", *lines[1:]])


def put_into(page: str, rows: str) -> str:
    """The page with its table of performance replaced."""
    before, rest = page.split(MARKS[0])
    return f"{before}{MARKS[0]}\n{rows}\n\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into README.md")
    if parser.parse_args().write:
        readme = ROOT / "README.md"
        readme.write_text(put_into(readme.read_text(), table()))
    print(table())


if __name__ == "__main__":
    main()

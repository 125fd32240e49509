"""The tables of README and docs, each from the files that hold its evidence."""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import performance
from benchmarks.shared.harness import RESULTS
from contrastive_jax import losses
from contrastive_jax.evaluation import protocols
from contrastive_jax.evaluation.results import value_of
from experiments.run import losses as by_name

ABLATIONS = RESULTS / "ablations"
RUNS = ("digits", "cifar_cpu")
IN_README = (
    {"name": "knn", "k": 10},
    {"name": "linear"},
    {"name": "few-label", "labels_per_class": 10},
)
PROTOCOLS = ({"name": "knn", "k": 20}, {"name": "knn", "k": 200}, *IN_README)
PAIRS = 8192  # of the README's table of losses
FAMILIES = ("NT-Xent", "CLIP", "SigLIP", "SupCon")
OURS = ("blockwise", "dense", "by config")  # how our contenders are called
SHOWN = 3  # differences in a row of claims, those that decide; table.md has all of them
Row = Sequence[str]


def provenance(kept: Mapping[str, Any]) -> str:
    """The commits beside a number: those that its runs were made by, where they say it.

    >>> provenance({"code": [{"commit": "0123456789", "dirty": True, "sha256": "abc"}]})
    'commit 0123456 with changes'
    >>> provenance({"commit": "0123456789"})
    'commit at recording 0123456'
    """
    if "code" not in kept:
        return f"commit at recording {kept['commit'][:7]}"
    return ", ".join(map(_commit, kept["code"]))


def _commit(code: Mapping[str, Any]) -> str:
    if code["commit"] is None:
        return f"code {code['sha256'][:7]}"
    return f"commit {code['commit'][:7]}" + " with changes" * bool(code["dirty"])


def results_rows(chosen: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Percent of the trained encoder, the untrained one and the pixels by each protocol."""
    rows = []
    for run in RUNS:
        kept = json.loads((RESULTS / f"{run}.json").read_text())
        link = f"[{run}.json](benchmarks/results/{run}.json), {provenance(kept)}"
        for protocol in chosen:
            found = [
                evaluation(kept["evaluations"], representation, protocol)
                for representation in ("trained", "untrained", "pixels")
            ]
            label = protocols.label(found[0]["protocol"])
            rows.append([run, label, *(f"{100 * value_of(row):.1f}" for row in found), link])
    return rows


def image_text(results: Path = RESULTS) -> str:
    """Recalls and zero-shot accuracies of the runs on captioned images, beside their baselines."""
    kept = {name: results / f"{name}.json" for name in IMAGE_TEXT}
    kept = {name: json.loads(path.read_text()) for name, path in kept.items() if path.exists()}
    if not kept:
        return "Not yet recorded; `python -m benchmarks.publish record RUN NAME` keeps a run."
    rows = [row for name, run in kept.items() for row in image_text_rows(name, run)]
    return markdown(IMAGE_TEXT_HEAD, rows)


def image_text_rows(name: str, kept: Mapping[str, Any]) -> Iterator[Row]:
    """Percent of the trained towers, of what learns nothing, of the untrained ones, of chance."""
    link = f"[{name}.json](benchmarks/results/{name}.json), {provenance(kept)}"
    quoted = [
        row
        for row in kept["evaluations"]
        if row["protocol"]["name"] in ("cross-modal", "zero-shot")
        and row["measure"] not in ("MRR", "recall@5")
    ]
    value = {
        (r["representation"], protocols.label(r["protocol"])): 100 * r["value"] for r in quoted
    }
    for row in (row for row in quoted if row["representation"] == "trained"):
        label, (low, high) = protocols.label(row["protocol"]), row["ci95"]
        weak = row.get("paired", {}).get("against")
        baseline = f"{value[weak, label]:.1f} ({weak})" if weak else ""
        ours = f"{100 * row['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        others = f"{value['untrained', label]:.1f}", f"{100 * row['chance']:.1f}"
        yield [name, f"{label}, n = {row['n']:,}", ours, baseline, *others, link]


def evaluation(
    evaluations: Sequence[Mapping[str, Any]], representation: str, protocol: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The row of a representation whose protocol has these values."""
    layer = "pixels" if representation == "pixels" else "features"
    for row in evaluations:
        found = (row["representation"], row["layer"]) == (representation, layer)
        if found and protocol.items() <= row["protocol"].items():
            return row
    raise KeyError(f"no row for {representation} and {protocol}")


def claims_rows(ablations: Path = ABLATIONS) -> list[Row]:
    """Of each finished ablation: claim, verdict, effect, link, source, seeds, what it ran on."""
    rows = []
    for path in sorted(ablations.glob("*/verdict.json")):
        kept = json.loads(path.read_text())
        if kept.get("finished", 0) < kept.get("runs", 0):
            continue
        folder = f"benchmarks/results/ablations/{path.parent.name}"
        lines = (path.parent / "results.jsonl").read_text().splitlines()
        rows.append(
            [
                kept["claim"].rstrip("."),
                f"**{kept['outcome']}**",
                effect(kept["reasons"], kept["outcome"]),
                f"[{kept['title']}]({folder}/table.md), [figure]({folder}/figure.png)",
                kept["source"].partition(": ")[2].rstrip("."),
                str(len(kept["seeds"])),
                f"{machines(map(json.loads, lines))}, {provenance(kept)}",
            ]
        )
    return rows


def ablation_table(name: str, ablations: Path = ABLATIONS) -> str:
    """The table of a kept ablation with what it ran on, or how to keep one."""
    folder = f"benchmarks/results/ablations/{name}"
    if not (ablations / name).exists():
        return f"Not yet recorded; `python -m benchmarks.publish claims DIR {name}` keeps it."
    kept = json.loads((ablations / name / "verdict.json").read_text())
    runs = map(json.loads, (ablations / name / "results.jsonl").read_text().splitlines())
    lines = (ablations / name / "table.md").read_text().splitlines()
    finished, asked = kept.get("finished", 0), kept.get("runs", 0)
    if finished < asked:
        return (
            f"Unfinished, {finished} of {asked} runs ([table]({folder}/table.md)); with a copy of "
            f"`{folder}` as its `--workdir` the command goes on."
        )
    about = (
        f"Mean ± standard error over {len(kept['seeds'])} seeds; {kept['claim'].rstrip('.')}: "
        f"**{kept['outcome']}**. [Table]({folder}/table.md), [figure]({folder}/figure.png); "
        f"{machines(runs)}, {provenance(kept)}."
    )
    return "\n".join([*(line for line in lines if line.startswith("|")), "", about])


def multi_crop(results: Path = RESULTS) -> str:
    """Seconds of a step with small views, beside what their pixels say."""
    path = results / "multi_crop_cpu.json"
    if not path.exists():
        return "Not yet recorded; `python -m benchmarks.multi_crop` measures it."
    kept = json.loads(path.read_text())
    rows = (
        [
            row["name"],
            f"{row['seconds']:.3f}",
            f"{row['seconds_ratio']:.2f}",
            f"{row['pixels_ratio']:.2f}",
            f"{row['megabytes']:,.0f}",
        ]
        for row in kept["rows"]
    )
    about = f"`{kept['protocol']['method']}` on {kept['processor']}, {kept['cores']} threads"
    link = f"[multi_crop_cpu.json](benchmarks/results/multi_crop_cpu.json), {provenance(kept)}."
    return f"{markdown(MULTI_CROP_HEAD, rows)}\n\n{about}, {link}"


def fine_tuned(results: Path = RESULTS) -> str:
    """nDCG@10 of MiniLM before and after fine-tuning, beside BM25 and sentence-transformers."""
    paths = [path for name in FINE_TUNED if (path := results / f"minilm_{name}_cpu.json").exists()]
    if not paths:
        return "Not yet recorded; `python -m benchmarks.minilm` measures it."
    return markdown(FINE_TUNED_HEAD, (row for path in paths for row in fine_tuned_rows(path)))


def fine_tuned_rows(path: Path) -> Iterator[Row]:
    """The systems of a file of minilm.py, from the worst to the best."""
    kept = json.loads(path.read_text())
    about = f"{kept['protocol']['set']}, {kept['queries']:,} queries"
    link = f"[{path.name}](benchmarks/results/{path.name}), {provenance(kept)}"
    for system, found in sorted(kept["systems"].items(), key=lambda pair: pair[1]["nDCG@10"]):
        error, (low, high) = found["standard error over seeds"], found["ci95 over queries"]
        spread = f" ± {error:.4f}" if error is not None else ""
        gain = f"{found['above zero-shot']:+.4f} ({low:+.4f} to {high:+.4f})"
        gain = "" if system == "zero-shot" else gain
        yield [about, system, f"{found['nDCG@10']:.4f}{spread}", gain, link]


def tpu_ahead(results: Path = RESULTS) -> str:
    """What the compiled steps of configs need of TPUs that were not there."""
    path = results / "tpu_ahead.json"
    if not path.exists():
        return "Not yet recorded; `python -m benchmarks.tpu_ahead` compiles a step."
    kept = json.loads(path.read_text())["rows"]
    commits = ", ".join(dict.fromkeys(row["commit"][:7] for row in kept))
    link = "[tpu_ahead.json](benchmarks/results/tpu_ahead.json)"
    about = f"{link}, XLA of jax {kept[0]['versions']['jax']}, commits at recording {commits}."
    return f"{markdown(TPU_AHEAD_HEAD, map(tpu_ahead_row, kept))}\n\n{about}"


def tpu_ahead_row(row: Mapping[str, Any]) -> Row:
    """A compiled step: whether it fits, and what bounds its time."""
    shown = ("data.batch_size", "data.streaming")  # in a column of its own; what it takes
    changed = [f"`{k}={v}`" for k, v in row["overrides"].items() if k not in shown]
    about = [", ".join([row["config"], *changed]), row["topology"], f"{row['batch_size']:,}"]
    if "needs" in row:
        return [*about, f"no: {row['needs']}", "", "", ""]
    seconds = dict(row["seconds_bound"])
    step = seconds.pop("step")
    return [
        *about,
        f"{row['held'] / 2**30:.1f} of {row['hbm_gib']:.0f} GiB",
        f"{row['flop'] / 1e12:.2f}",
        f"{1000 * step:.1f} ({max(seconds, key=seconds.__getitem__)})",
        f"{100 * seconds['collectives'] / step:.1f} %",
    ]


def effect(reasons: Sequence[str], outcome: str) -> str:
    """The differences that decide: of a claim of several parts, those with its outcome.

    >>> effect(["a - b = +1.0 ± 0.4 points: reproduced", "a - c = +0.1 ± 0.4 points: undecided"],
    ...        "undecided")
    'a - c = +0.1 ± 0.4 points'
    """
    ending = f": {outcome}"
    deciding = [r.removesuffix(ending) for r in reasons if r.endswith(ending)] or list(reasons)
    more = [f"and {len(deciding) - SHOWN} more"] if len(deciding) > SHOWN else []
    return "<br>".join(deciding[:SHOWN] + more)


def machines(runs: Iterable[Mapping[str, Any]]) -> str:
    """Every device and version of jax that the runs had."""
    kinds = []
    for run in runs:
        threads = f"{run['cpus']} threads, " if "cpus" in run else ""
        kinds.append(f"{run['device']}, {threads}jax {run['versions']['jax']}")
    return "; ".join(dict.fromkeys(kinds))


def speed_rows() -> list[Row]:
    """Seconds and megabytes of four losses, in tiles and dense, beside the fastest peer."""
    measured = json.loads((RESULTS / "losses_cpu.json").read_text())["rows"]
    rows = []
    for family in FAMILIES:
        of = [row for row in measured if (row.get("family"), row["pairs"]) == (family, PAIRS)]
        tiles, dense = (
            next(row for row in of if row["name"].endswith(form)) for form in ("blockwise", "dense")
        )
        peers = (row for row in of if not row["name"].endswith(OURS))
        peer = min(peers, key=lambda row: row["seconds"])
        rows.append([family, cost(tiles), cost(dense), f"{peer['name']}: {cost(peer)}"])
    return rows


def measured_losses() -> str:
    """Seconds and megabytes of every contender at every size."""
    measured = json.loads((RESULTS / "losses_cpu.json").read_text())["rows"]
    sizes = sorted({row["pairs"] for row in measured})
    contenders = {row["name"]: row["family"] for row in measured if "family" in row}
    found = {(row["name"], row["pairs"]): cost(row) for row in measured}
    head = " | ".join(["loss", "contender", *(f"{n:,} pairs" for n in sizes)])
    rows = (
        [family, name, *(found.get((name, n), "") for n in sizes)]
        for name, family in contenders.items()
    )
    return markdown(head, rows)


def cost(row: Mapping[str, Any]) -> str:
    return row.get("skipped") or f"{row['seconds']:.3g} s, {row['megabytes']:,.0f} MB"


def losses_rows() -> list[Row]:
    """Each public loss by the docstring and signature of its function."""
    return [loss_row(name, getattr(losses, name)) for name in losses.__all__]


def loss_row(name: str, function: Any) -> Row:
    text = inspect.getdoc(function) or ""
    formula = re.search(r"^    (\S.*)$", text.partition("\nArgs:")[0], re.MULTILINE)
    keywords = inspect.signature(function).parameters
    needs = ", ".join(k for k, p in keywords.items() if p.default is p.empty)
    scales = [f"`{key}`" for key in ("axis_name", "block_size") if key in keywords]
    papers = dict.fromkeys(re.findall(r"arXiv[: ](\d{4}\.\d{4,5})", text))
    links = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in papers)
    written = formula[1].replace("|", "\\|") if formula else ""
    named = [f"`{kind}`" for kind, (loss, _) in by_name.KINDS.items() if loss is function]
    in_runs = " ".join(named) or IN_RUNS.get(name, "")
    use = re.search(r"^Use it (.+?)\.$", text, re.MULTILINE | re.DOTALL)
    when = " ".join(use[1].split()) if use else ""
    cells = [f"`{name}`", text.splitlines()[0], when, f"`{written}`", f"`{needs}`"]
    return [*cells, " ".join(scales), in_runs, links]


RESULTS_HEAD = "run | protocol (features, test set) | trained | untrained | pixels | evidence"
CLAIMS_HEAD = "claim | verdict | measured, ± 2 standard errors | table"
ALL_CLAIMS_HEAD = f"{CLAIMS_HEAD} | source | seeds | run on"
SPEED_HEAD = "loss | in tiles | dense | fastest peer"
IMAGE_TEXT_HEAD = "run | score | trained (95 %) | learns nothing | untrained | chance | evidence"
IMAGE_TEXT = ("glyphs", "glyphs_seed1", "glyphs_siglip", "glyphs_siglip_seed1", "emoji")
FINE_TUNED_HEAD = "set | system | nDCG@10 | above zero-shot (95 %, over queries) | evidence"
FINE_TUNED = ("docstrings", "covid_qa")
MULTI_CROP_HEAD = "views | seconds a step | times that of 2 large | times their pixels | MB a step"
TPU_AHEAD_HEAD = (
    "config | slice | batch | fits | TFLOP a chip | bound, ms a step (by) | collectives, of that"
)
LOSSES_HEAD = (
    "loss | what it does | use it | formula, first line | needs | scales by | in runs | arXiv"
)
IN_RUNS = {  # losses that are no kind of `loss`, and what reaches them
    "learned_temperature": "`temperature`",
    "matryoshka": "`matryoshka`",
    "queue_info_nce": "method `moco`",
}


def markdown(head: str, rows: Iterable[Row]) -> str:
    """A table of Markdown.

    >>> print(markdown("a | b", [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    columns = head.count(" | ") + 1
    lines = [head, *(" | ".join(row) for row in rows)]
    return "\n".join([f"| {lines[0]} |", "|---" * columns + "|", *(f"| {x} |" for x in lines[1:])])


def all_tables() -> dict[str, str]:
    """Every table by its name, with links from the root of the repository."""
    claims = claims_rows()
    return {
        "results": markdown(RESULTS_HEAD, results_rows(IN_README)),
        "all results": markdown(RESULTS_HEAD, results_rows(PROTOCOLS)),
        "claims": markdown(CLAIMS_HEAD, [row[:4] for row in claims]),
        "all claims": markdown(ALL_CLAIMS_HEAD, claims),
        "speed of losses": markdown(SPEED_HEAD, speed_rows()),
        "measured losses": measured_losses(),
        "losses": markdown(LOSSES_HEAD, losses_rows()),
        "methods": ablation_table("methods_cpu"),
        "multi-crop": multi_crop(),
        "image and text": image_text(),
        "fine-tuned texts": fine_tuned(),
        "tpu ahead": tpu_ahead(),
        "performance": markdown(performance.HEAD, performance.rows(RESULTS)),
    }

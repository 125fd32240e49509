"""The ablation runner: refused early, finished after a stop, the same table; whole pages."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax import parallel
from contrastive_jax.data import Dataset
from contrastive_jax.evaluation import claims
from contrastive_jax.storage import workdir
from contrastive_jax.types import RunInfo
from experiments import ablations
from experiments.ablation import grid, jobs, results
from experiments.run import command_line, lifecycle, provenance
from experiments.run.methods import METHODS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.stem
    for path in (ROOT / "configs" / "ablations").glob("[a-z]*.py")
    if "def claim" in path.read_text()
)
PAGE = """
from configs.ablations import base
from contrastive_jax.evaluation import claims

def get_config(preset="smoke"):
    return base.with_digits("smoke")

def grid(preset):
    raw = {{
        "axes": {{"loss.temperature": (0.1, 0.5), "head.kind": ("linear", "mlp")}},
        "seeds": 2,
        "columns": {{"linear": base.LINEAR, "validation": {{"logged": "knn_validation"}}}},
    }}
    raw.update({changes})
    return raw

def claim(results):
    '''Cold is better
    than warm.'''
    cold, warm = (results[f"temperature={{t}}, kind=mlp"]["linear"] for t in ("0.1", "0.5"))
    return claims.above(cold, warm)
"""


pytestmark = pytest.mark.usefixtures("in_the_repository")


@pytest.fixture
def page(tmp_path):
    """Writes a page whose grid has some keys changed; its path."""

    def write(changes: str = "") -> Path:
        path = tmp_path / "page.py"
        path.write_text(PAGE.format(changes=changes or "{}"))
        return path

    return write


@pytest.fixture
def run(capsys):
    """The command: arguments -> (exit code, stdout, stderr)."""

    def call(*arguments) -> tuple[int, str, str]:
        argv = ["experiments/ablations.py", *map(str, arguments)]
        with pytest.raises(SystemExit) as exit_info, command_line.exit_codes():
            sys.exit(ablations.main(argv))
        return (exit_info.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def pretend(monkeypatch):
    """Runs that take no time: their scores are a function of the config. The list of those done."""
    done: list[str] = []

    def train_and_score(run, folder, signals, *, name, command):
        del signals, command
        config = run.config
        done.append(f"{name}, seed {config.train.seed}")
        value = 0.9 - 0.1 * config.loss.temperature + 0.01 * config.train.seed
        evaluation = {"representation": "trained", "layer": "features", "value": value}
        evaluation |= {"split": "test", "n": 500, "protocol": {"name": "linear"}}
        seconds = {"compile": 2.0, "training": 6.0, "evaluation": 1.0, "resumed_from_step": 0}
        description = provenance.describe(run, "pretend")
        workdir.write_json(folder / "config.json", description)
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "knn_validation": 0.5}) + "\n")
        (folder / "results").mkdir(exist_ok=True)
        summary = provenance.of_scores(run, description, run.plan.steps)
        summary |= {"evaluations": [evaluation], "seconds": seconds}
        workdir.write_json(folder / "results" / "summary.json", summary)
        return summary

    monkeypatch.setattr(lifecycle, "train_and_score", train_and_score)
    return done


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("{'axes': {'loss.temperature': ()}}", "the axis 'loss.temperature' is empty"),
        ("{'axes': {'loss.temperatur': (0.1,)}}", "'temperatur' is no key of 'loss'"),
        ("{'axes': {'los.temperature': (0.1,)}}", "'los' is no section"),
        ("{'axes': {'train.seed': ('x',)}}", "cell 'seed=x'"),
        ("{'axes': {'loss.temperature': (0.1, -1.0)}}", "cell 'temperature=-1': loss temperature"),
        ("{'axes': {'loss.temperature': (0.1, 0.1)}}", "the cell 'temperature=0.1' is there twice"),
        ("{'axes': {'a': {'x': {}, 'y': {'loss.temperature': 0.2}}}}", "the same config"),
        ("{'axes': {}}", "either axes or cells"),
        ("{'axis': {}}", "'axis' is no key of a grid"),
        ("{'columns': {}}", "no columns"),
        ("{'columns': {'a': {'layer': 'feature', 'name': 'linear'}}}", "'layer': 'feature'"),
        ("{'columns': {'a': {'logged': 'lss'}}}", "asks for 'lss'"),
        ("{'columns': {'a': {'cost': 'joules'}}}", "asks for 'joules'; there is ['milliseconds'"),
        ("{'columns': {'a': {'logged': 'loss', 'layer': 'features'}}}", "the column 'a'"),
        (
            "{'columns': {'a': {'layer': 'features', 'name': 'few-label'}}}",
            "'few-label'}; there is",
        ),
        ("{'columns': {'a': {'layer': 'features', 'name': 'knn', 'k': 3}}}", "'k': 3}; there is"),
        ("{'columns': {'a': {'layr': 'features'}}}", "the column 'a'"),
        ("{'tuned': {'best': ('nothing',)}}", "no cell 'nothing'"),
        ("{'figure': {'form': 'pie'}}", "'pie'"),
        ("{'figure': {'columns': ('kNN',)}}", "the figure draws 'kNN'"),
        ("{'figure': {'axes': 'x'}}", "'axes' is no key of a figure"),
        ("{'seeds': 0}", "seeds is 0"),
        ("{'experiment': 'simclear'}", "'simclear'; did you mean 'simclr'"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_runs(changes, says, page, run, pretend, tmp_path):
    code, _, err = run(f"--config={page(changes)}", f"--workdir={tmp_path / 'out'}")
    assert code == 2, err
    assert says in err
    assert len(err.strip().splitlines()) <= 3
    assert pretend == []
    assert {path.name for path in tmp_path.glob("out/*")} <= {".lock"}


def test_only_that_means_no_cell_is_refused(page, run, pretend, tmp_path):
    code, _, err = run(f"--config={page()}", f"--workdir={tmp_path}", "--only=loss.temperature=7")
    assert code == 2
    assert "no cell is meant" in err


def test_an_interrupted_ablation_does_what_is_missing_and_gives_the_same_table(
    page, run, pretend, tmp_path, monkeypatch
):
    words = f"--config={page()}"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(words, f"--workdir={whole}")[0] == 0
    everything = pretend.copy()
    assert len(everything) == 8
    pretend.clear()

    assert run(words, f"--workdir={parts}", "--only=loss.temperature=0.5")[0] == 0
    assert len(pretend) == 4
    assert json.loads((parts / "verdict.json").read_text())["outcome"] == "undecided"
    real = lifecycle.train_and_score

    def killed(*args, **kwargs):
        if len(pretend) == 6:
            raise SystemExit(137)  # as if the process were gone
        return real(*args, **kwargs)

    monkeypatch.setattr(lifecycle, "train_and_score", killed)
    assert run(words, f"--workdir={parts}")[0] == 137
    monkeypatch.setattr(lifecycle, "train_and_score", real)
    assert len(pretend) == 6
    assert run(words, f"--workdir={parts}")[0] == 0
    assert sorted(pretend) == sorted(everything)  # each run once
    assert (parts / "table.md").read_text() == (whole / "table.md").read_text()
    assert (parts / "results.jsonl").read_text() == (whole / "results.jsonl").read_text()
    verdict = json.loads((parts / "verdict.json").read_text())
    assert verdict["outcome"] == "reproduced"
    assert verdict["claim"] == "Cold is better than warm."
    assert (parts / "figure.png").read_bytes().startswith(b"\x89PNG")

    pretend.clear()
    assert run(words, f"--workdir={parts}")[0] == 0
    assert pretend == []


def test_another_machine_goes_on_from_a_copy_of_the_results(page, run, pretend, tmp_path):
    words = f"--config={page()}"
    whole, here, there = tmp_path / "whole", tmp_path / "here", tmp_path / "there"
    run(words, f"--workdir={whole}")
    pretend.clear()
    run(words, f"--workdir={here}", "--only=loss.temperature=0.5")
    there.mkdir()
    shutil.copy(here / "results.jsonl", there)
    out = run(words, f"--workdir={there}", "--dry_run")[1]
    assert "4 of 8 runs to do, about 0.6 minutes by measured steps" in out
    assert run(words, f"--workdir={there}")[0] == 0
    assert len(pretend) == 8  # 4 here, 4 there
    for name in ("results.jsonl", "table.md", "verdict.json"):
        assert (there / name).read_text() == (whole / name).read_text()
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(there / "results.jsonl", again)
    assert run(words, f"--workdir={again}")[0] == 0
    assert len(pretend) == 8
    assert (again / "table.md").read_text() == (whole / "table.md").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row["config"]["train"].update(seed=5), "train.seed: 5 -> 0"),
        (lambda row: row["config"]["loss"].update(temperature=0.3), "loss.temperature: 0.3 -> 0.1"),
        (lambda row: row.update(method="moco"), "method: 'moco' -> 'simclr'"),
        (lambda row: row["data"].update(sha256="0", test=7), "other data: test: 7 -> 500"),
    ],
)
def test_results_of_another_config_or_set_are_refused(change, says, page, run, pretend, tmp_path):
    words = (f"--config={page()}", f"--workdir={tmp_path / 'out'}")
    run(*words)
    pretend.clear()
    path = tmp_path / "out" / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows[0])
    shutil.rmtree(tmp_path / "out" / "runs")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text)
    code, _, err = run(*words)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) <= 3
    assert pretend == []
    assert path.read_text() == text


@pytest.mark.parametrize("line", ['{"cell": "a", "se', '{"loss": 1.0}', "[1, 2]"])
def test_a_broken_copy_of_the_results_is_refused(line, page, run, pretend, tmp_path):
    (tmp_path / "results.jsonl").write_text(line + "\n")
    code, _, err = run(f"--config={page()}", f"--workdir={tmp_path}")
    assert code == 2
    assert "results.jsonl is no list of an ablation's runs" in err
    assert len(err.strip().splitlines()) <= 3
    assert pretend == []
    assert (tmp_path / "results.jsonl").read_text() == line + "\n"


def test_results_that_lack_a_column_or_a_config_are_made_again(page, run, pretend, tmp_path):
    words = (f"--config={page()}", f"--workdir={tmp_path / 'out'}")
    run(*words)
    whole = (tmp_path / "out" / "results.jsonl").read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    del rows[0]["config"], rows[1]["measured"]["linear"]
    rows[2]["measured"]["linear"]["protocol"]["name"] = "knn"
    rows[3]["measured"]["validation"]["logged"] = "loss"
    shutil.rmtree(tmp_path / "out" / "runs")
    (tmp_path / "out" / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    pretend.clear()
    code, _, err = run(*words)
    assert (code, len(pretend)) == (0, 4)
    assert "4 runs are done again" in err
    assert (tmp_path / "out" / "results.jsonl").read_text() == whole


def test_a_crash_is_tried_again_once_and_reported(page, run, pretend, tmp_path, monkeypatch):
    real, tries = lifecycle.train_and_score, []

    def fragile(run_, folder, signals, **keywords):
        config = run_.config
        tries.append((config.loss.temperature, config.train.seed))
        if config.loss.temperature == 0.1 and (config.train.seed == 1 or len(tries) == 1):
            raise RuntimeError("the device is on fire")
        return real(run_, folder, signals, **keywords)

    monkeypatch.setattr(lifecycle, "train_and_score", fragile)
    path = page("{'axes': {'loss.temperature': (0.1, 0.5)}}")
    words = f"--config={path}"
    code, _, _ = run(words, f"--workdir={tmp_path / 'out'}")
    assert code == jobs.INCOMPLETE
    assert tries == [(0.1, 0), (0.1, 0), (0.1, 1), (0.1, 1), (0.5, 0), (0.5, 1)]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "seed 0: RuntimeError: the device is on fire (finished when tried again)" in table
    assert "seed 1: RuntimeError: the device is on fire (not finished)" in table
    assert "| temperature=0.1 | - |" in table
    assert "**undecided**" in table


def test_dry_run_says_what_is_missing_and_how_long_it_takes(page, run, pretend, tmp_path):
    path = page("{'seconds': 30.0}")
    words = (f"--config={path}", f"--workdir={tmp_path / 'out'}")
    code, out, _ = run(*words, "--dry_run")
    assert code == 0
    assert pretend == []
    assert "8 of 8 runs to do, about 4.0 minutes by the config" in out
    run(*words, "--only=head.kind=mlp")
    assert len(pretend) == 4
    out = run(*words, "--dry_run")[1]
    # Each takes 2 + 1 seconds beside training, and the 6 of a run of the same length.
    assert "4 of 8 runs to do, about 0.6 minutes by measured steps" in out
    assert len(pretend) == 4


def test_the_best_of_a_tuned_group_is_chosen_on_held_out_training_images():
    complete = {
        "a": {"linear": (0.9, 0.9), "validation": (0.1, 0.1)},
        "b": {"linear": (0.2, 0.2), "validation": (0.5, 0.5)},
    }
    assert results.best(complete, ("a", "b")) == "b"


def test_a_column_of_costs_is_that_of_the_summary(page):
    path = page(
        "{'axes': {'loss.temperature': (0.1,)}, 'columns': {'ms': {'cost': 'milliseconds'}}}"
    )
    table, summary = grid.read(str(path), ""), {"step_cost": {"milliseconds": 12.345}}
    rows = [results.row(table, table.cells[0], seed, summary, []) for seed in table.seeds]
    complete = results.results(table, rows)
    verdict = claims.Verdict(claims.UNDECIDED, ())
    assert "| temperature=0.1 | 12.35 ± 0.00 |" in results.table("a", table, complete, verdict)
    with pytest.raises(ValueError, match="'ms': the summary has no milliseconds of a step"):
        results.row(table, table.cells[0], 0, {"step_cost": None}, [])


READ = {  # what decides which set is read, beside `data`
    "mining": {"mine": {"every_steps": 4}},
    "a guide": {"loss": {"kind": "guided_info_nce", "guide": "DIR"}},
    "a tokenizer of texts": {"encoder": {"folder": "DIR"}},
    "a tokenizer of captions": {"text": {"folder": "DIR"}},
}


@pytest.mark.parametrize("case", READ)
def test_cells_share_a_set_only_where_it_is_the_same(case):
    loaded = []
    kind = SimpleNamespace(load=lambda config: loaded.append(config) or Dataset("a", {}, {}, ()))
    plain = {"data": {"source": "pairs", "batch_size": 8}, "mine": {"every_steps": 0}}
    load = ablations.keeping()
    for config in (plain, plain | {"train": {"steps": 3}}, plain | READ[case], plain):
        load(SimpleNamespace(kind=kind), ConfigDict(config))
    assert len(loaded) == 3


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_whole(name):
    """Its cells build, its claim reads cells that are there, its header quotes its source."""
    path = f"configs/ablations/{name}.py"
    info = RunInfo(parallel.make_mesh(), 1, 10, n_tokens=20)
    for preset in ("full", "cpu", "smoke"):
        page = grid.read(path, preset)
        sections = {name: method.all_sections() for name, method in METHODS.items()}
        argv = ["ablations", f"--config={path}:{preset}"]
        base = command_line.parse(argv, "", sections[page.experiment]).config
        configs = grid.configs(page, base, sections)
        for cell in page.cells:
            METHODS[grid.method_of(page, cell)].build(configs[cell.name], info)
        rng = np.random.default_rng(0)
        made_up = {column: {"value": float(rng.uniform())} for column in page.columns}
        rows = [
            {"cell": cell.name, "seed": seed, "measured": made_up}
            for cell in page.cells
            for seed in page.seeds
        ]
        verdict = results.judge(page, results.results(page, rows))
        assert verdict.reasons
        assert page.claim_text.endswith(".")
        assert page.seconds > 0
    header = Path(path).read_text().split('"""')[1]
    assert f"--config {path}:cpu" in header
    assert "arXiv" in header.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("augmentation_pairs", "crop + color"),
        ("transformations", "rotation"),
        ("false_negatives", "left out"),
    ],
)
def test_an_ablation_of_color_images_runs(name, cell, run, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (256, 32, 32, 3), np.uint8)
    labels = np.arange(256, dtype=np.int32) % 10
    sets = {"image": image, "label": labels, "test_image": image, "test_label": labels}
    np.savez(tmp_path / "noise.npz", **sets)
    words = (f"--config=configs/ablations/{name}.py:smoke", f"--workdir={tmp_path / 'out'}")
    own = ("--config.data.source=arrays", f"--config.data.data_dir={tmp_path / 'noise.npz'}")
    tiny = ("--config.encoder.stages=1", "--config.augment.size=16", "--config.train.steps=1")
    code, _, err = run(*words, *own, *tiny, f"--only={cell}")
    assert code == 0, err
    row = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    assert row["cell"] == cell
    page = grid.read(f"configs/ablations/{name}.py", "smoke")
    assert all(0 <= row["measured"][column]["value"] <= 1 for column in page.plotted)
    assert (tmp_path / "out" / "figure.png").exists()


def test_a_real_ablation_leaves_its_table_figure_and_verdict(run, tmp_path):
    words = ("--config=configs/ablations/probe_layer.py:smoke", f"--workdir={tmp_path}")
    code, out, err = run(*words, "--config.train.steps=4")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(row["cell"], row["seed"]) for row in rows] == [("head=linear", 0), ("head=mlp", 0)]
    for row in rows:
        assert row["protocol"]["name"] == "linear"
        assert row["protocol"]["selection"].startswith("held-out")
        summary = json.loads(
            (tmp_path / "runs" / row["cell"] / "seed0" / "results" / "summary.json").read_text()
        )
        assert {e["representation"] for e in summary["evaluations"]} == {"trained"}
        assert row["config_sha256"] == summary["config_sha256"]
    assert "| head=linear | " in out
    assert "undecided" in (tmp_path / "table.md").read_text()  # one seed decides nothing

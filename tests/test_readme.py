"""The README is true: its tree, its code, its numbers, its commands."""

import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_tree_has_one_line_for_each_file():
    tree = section("The file tree").split("```")[1]
    listed = {line.split()[0] for line in tree.strip().splitlines() if not line.startswith(" ")}
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.txt", "*.toml", "*.html", "*.sh", ".ci/run", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert listed == {name for name in tracked if name not in ("configs/__init__.py",)}


def test_the_code_of_the_page_runs():
    code = "\n".join(block for language, block in BLOCKS if language == "python")
    assert "nt_xent" in code
    exec(compile(code, "README.md", "exec"), {})


@pytest.fixture
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.usefixtures("_benchmarks")
@pytest.mark.parametrize(("script", "title"), [("record", "Results"), ("table", "Performance")])
def test_the_tables_are_those_of_the_files_they_name(script, title):
    assert importlib.import_module(script).table() in section(title)


@pytest.mark.usefixtures("_benchmarks")
def test_the_claims_are_those_of_the_recorded_ablations():
    import claims

    assert f"\n{claims.table()}\n\n<!-- end of claims -->" in section("Paper claims")


@pytest.mark.usefixtures("_benchmarks")
def test_a_recorded_ablation_becomes_a_row(tmp_path):
    import claims

    run, kept = tmp_path / "run", tmp_path / "kept"
    run.mkdir()
    verdict = {"title": "page-cpu", "source": "A thing: Paper, Table 1.", "claim": "A is better."}
    verdict |= {"outcome": "undecided", "seeds": [0, 1], "finished": 3, "runs": 4}
    verdict["reasons"] = ["a - b = +9.0 ± 1.0 points: reproduced", "a - c = +0.1 ± 0.4: undecided"]
    row = {"device": "1 x cpu", "cpus": 2, "versions": {"jax": "1.2.3"}}
    (run / "results.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    for name in ("table.md", "figure.png"):
        (run / name).write_text(name)
    (run / "verdict.json").write_text(json.dumps(verdict))
    with pytest.raises(SystemExit, match="has 3 of 4 runs"):
        claims.record(run, kept / "page")
    assert claims.table(kept).count("\n") == 1  # the head alone

    (run / "verdict.json").write_text(json.dumps({**verdict, "finished": 4}))
    claims.record(run, kept / "page")
    cells = claims.table(kept).splitlines()[2].strip("| ").split(" | ")
    assert cells[:5] == [
        "A is better",
        "Paper, Table 1",
        "**undecided**",
        "2",
        "a - c = +0.1 ± 0.4",
    ]
    assert "[page-cpu](benchmarks/results/ablations/page/table.md)" in cells[5]
    assert re.fullmatch(r"1 x cpu, 2 threads, jax 1\.2\.3, commit [0-9a-f]{7}", cells[6])
    assert (kept / "page" / "figure.png").read_text() == "figure.png"


@pytest.mark.parametrize("command", re.findall(r"python -m (experiments\.\w+[^\n#]*)", README))
def test_commands_name_modules_and_configs_that_exist(command):
    module = command.split()[0].replace(".", "/") + ".py"
    assert (ROOT / module).is_file()
    for config in re.findall(r"--config (\S+?\.py)", command):
        assert (ROOT / config).is_file()

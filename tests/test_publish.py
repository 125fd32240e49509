"""Tables are written from the evidence; runs are kept with the commit that made them."""

import doctest
import json
import re
from pathlib import Path

import pytest

from benchmarks import publish, tables

BEFORE = "before\n<!-- table: x -->\nold\n<!-- end of table -->\nafter\n"
AFTER = "before\n<!-- table: x -->\n\n[new](benchmarks/y)\n\n<!-- end of table -->\nafter\n"
CODE = {"commit": "0123456789abcdef", "dirty": False, "sha256": "f" * 64}


def filled(page: str = "README.md") -> str:
    return publish.filled(Path(page), BEFORE, {"x": "[new](benchmarks/y)"})


def test_the_examples_of_the_tables_hold():
    assert doctest.testmod(tables).failed == 0


def test_a_stale_table_is_named_and_written_anew(tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text(BEFORE)
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(publish, "pages", lambda: {Path("README.md"): filled()})
    assert publish.main([]) == 1
    assert "README.md is stale" in capsys.readouterr().out
    assert publish.main(["--write"]) == 0
    assert page.read_text() == AFTER
    assert publish.main([]) == 0


def test_links_of_a_table_are_relative_to_its_page():
    assert "[new](../benchmarks/y)" in filled("docs/page.md")


def test_a_table_that_is_not_made_is_an_error():
    with pytest.raises(KeyError, match="x"):
        publish.filled(Path("README.md"), BEFORE, {})


def test_a_run_is_recorded_with_the_commit_that_made_it(tmp_path):
    run = tmp_path / "run"
    (run / "results").mkdir(parents=True)
    row = {"representation": "trained", "layer": "features", "protocol": {"name": "linear"}}
    (run / "results" / "summary.json").write_text(json.dumps({"evaluations": [row]}))
    (run / "config.json").write_text(json.dumps({"code": CODE}))
    kept = json.loads(publish.record(run, "name", tmp_path).read_text())
    assert tables.provenance(kept) == "commit 0123456"
    assert tables.evaluation(kept["evaluations"], "trained", {"name": "linear"}) == row

    (run / "config.json").write_text("{}")
    kept = json.loads(publish.record(run, "name", tmp_path).read_text())
    assert re.fullmatch(r"commit at recording [0-9a-f]{7}", tables.provenance(kept))


def test_an_ablation_is_recorded_and_its_claim_listed_once_it_is_finished(tmp_path):
    ablation, kept = tmp_path / "run", tmp_path / "kept"
    verdict = {"title": "page-cpu", "source": "A thing: Paper, Table 1.", "claim": "A is better."}
    verdict |= {"outcome": "undecided", "seeds": [0, 1], "finished": 3, "runs": 4}
    verdict["reasons"] = ["a - b = +9.0 ± 1.0 points: reproduced", "a - c = +0.1 ± 0.4: undecided"]
    row = {"device": "1 x cpu", "cpus": 2, "versions": {"jax": "1.2.3"}}
    codes = [{**CODE, "commit": commit * 40} for commit in "1222"]
    lines = [json.dumps({**row, "code": code}) + "\n" for code in codes]
    ablation.mkdir()
    (ablation / "results.jsonl").write_text("".join(lines))
    for name in ("table.md", "figure.png"):
        (ablation / name).write_text(name)
    (ablation / "verdict.json").write_text(json.dumps(verdict))
    publish.keep_claim(ablation, "page", kept)
    assert not tables.claims_rows(kept)
    assert tables.ablation_table("page", kept).startswith("Unfinished, 3 of 4 runs")

    (ablation / "verdict.json").write_text(json.dumps({**verdict, "finished": 4}))
    publish.keep_claim(ablation, "page", kept)
    claim, outcome, effect, link, source, seeds, ran_on = tables.claims_rows(kept)[0]
    assert (claim, outcome, source, seeds) == (
        "A is better",
        "**undecided**",
        "Paper, Table 1",
        "2",
    )
    assert effect == "a - c = +0.1 ± 0.4"
    assert "[page-cpu](benchmarks/results/ablations/page/table.md)" in link
    assert ran_on == "1 x cpu, 2 threads, jax 1.2.3, commit 1111111, commit 2222222"
    assert (kept / "page" / "figure.png").read_text() == "figure.png"

    (kept / "page" / "table.md").write_text("# page\n\n| cell |\n|---|\n| a |\n\nMore.\n")
    table = tables.ablation_table("page", kept)
    assert table.startswith("| cell |\n|---|\n| a |\n\nMean ± standard error over 2 seeds")
    assert "**undecided**" in table
    assert "1 x cpu, 2 threads, jax 1.2.3, commit 1111111, commit 2222222." in table
    assert "publish claims DIR other` keeps it" in tables.ablation_table("other", kept)


def test_the_table_of_multi_crop_is_that_of_its_record(tmp_path):
    assert "benchmarks.multi_crop` measures it" in tables.multi_crop(tmp_path)
    row = {"name": "2 large", "seconds": 0.25, "seconds_ratio": 1.0, "pixels_ratio": 1.0}
    kept = {"rows": [{**row, "megabytes": 1024.0}], "protocol": {"method": "swav"}}
    kept |= {"processor": "a processor", "cores": 2, "commit": "0123456789"}
    (tmp_path / "multi_crop_cpu.json").write_text(json.dumps(kept))
    assert "| 2 large | 0.250 | 1.00 | 1.00 | 1,024 |" in tables.multi_crop(tmp_path)


def test_a_compiled_step_shows_what_bounds_it_or_what_it_lacks():
    row = {"config": "c.py", "overrides": {"a.b": "1"}, "topology": "v5e:2x2", "batch_size": 4096}
    seconds = {"products": 0.02, "memory": 0.04, "collectives": 0.01, "step": 0.04}
    fits = {"held": 2**31, "hbm_gib": 16.0, "flop": 3e12, "seconds_bound": seconds}
    about = ["c.py, `a.b=1`", "v5e:2x2", "4,096"]
    shown = [*about, "2.0 of 16 GiB", "3.00", "40.0 (memory)", "25.0 %"]
    assert tables.tpu_ahead_row({**row, **fits}) == shown
    lacks = {**row, "needs": "17.00 of 15.75 GiB"}
    assert tables.tpu_ahead_row(lacks) == [*about, "no: 17.00 of 15.75 GiB", "", "", ""]

"""What is made of a finished run: a page that needs nothing else, an encoder for others."""

import base64
import io
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from contrastive_jax import export as exports
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments import export, report
from experiments.reporting import features
from experiments.run import lifecycle, restore
from experiments.simclr import EXPERIMENT

WORDS = (
    "--config=configs/digits.py:smoke",
    "--config.train.steps=4",
    "--config.train.log_every=1",
    "--config.checkpoint.every_steps=2",
    "--config.eval.every_steps=2",
    "--config.eval.labels_per_class=0",
    "--config.eval.probe_steps=8",
)
ODD_NAME = 'b<i>&"'  # what would break a page that does not escape it


@pytest.fixture(scope="module", autouse=True)
def _no_compilation_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "set_up_jax", lambda: None)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of four steps, with everything that it draws."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    words = ["simclr.py", *WORDS, f"--workdir={folder}"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)  # ml_collections reads it
        assert lifecycle._main(EXPERIMENT, words) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return folder


@pytest.fixture(scope="module")
def other(run):
    """The same run as if at another temperature, in a folder with an awkward name."""
    folder = run.with_name(ODD_NAME)
    shutil.copytree(run, folder)
    description = workdir.read_json(folder / "config.json")
    description["config"]["loss"]["temperature"] = 0.75
    workdir.write_json(folder / "config.json", description)
    return folder


@pytest.fixture(scope="module")
def page(run, other, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "report.html"
    assert report.main(["report", str(run), str(other), "--to", str(target)]) == 0
    return target


class Page(HTMLParser):
    """Elements with their attributes, and the text of each section."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "section":
            self._section = attributes["id"] or ""
            self.sections[self._section] = ""

    def handle_data(self, data):
        if self._section:
            self.sections[self._section] += data + "\n"

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def parsed(page):
    return Page(page.read_text())


def test_every_picture_is_in_the_page(parsed, run):
    images = [image["src"] for image in parsed.of("img")]
    drawn = {path.stem for path in (run / "figures").glob("*.png")} - {"curves"}
    assert {"views", "map_features", "neighbours", "cosines", "scores"} <= drawn
    computed = 3  # two kinds of pairs, a confusion matrix
    assert len(images) == 2 * (len(drawn) + computed) + 1  # and the curves of both runs
    for source in images:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            image.load()
            assert min(image.size) > 100


def test_the_page_refers_to_nothing_outside_itself(parsed, page):
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in parsed.of("a")]
    assert {link.removeprefix("#") for link in links} == set(ids)
    assert [a["href"] for a in parsed.of("link")] == ["data:,"]
    assert not parsed.of("script")
    assert not [a for _, a in parsed.elements if any(name.startswith("on") for name in a)]
    assert not re.search(r"https?:|@import|url\(", page.read_text())


def test_what_comes_from_a_run_is_escaped(parsed, page):
    assert not parsed.of("i") or all("style" in a for a in parsed.of("i"))
    assert ODD_NAME in parsed.sections["runs"]
    assert ODD_NAME not in page.read_text()


def test_the_difference_of_configs_is_the_keys_that_differ(parsed):
    words = parsed.sections["what-differs"].split()
    assert words[-3:] == ["loss.temperature", "0.2", "0.75"]
    assert "train.seed" not in words


def test_every_score_has_its_interval_and_its_protocol(parsed, run):
    rows = workdir.read_json(run / "results" / "summary.json")["evaluations"]
    shown = parsed.sections["scores"]
    for row in rows:
        low, high = row["ci95"]
        assert f"{100 * row['accuracy']:.1f}\n" in shown
        assert f"{100 * low:.1f} to {100 * high:.1f}" in shown
    titles = [a["title"] for a in parsed.of("td") if "title" in a]
    assert len(titles) == 2 * len(rows)
    assert any("k: 20" in t and "metric: cosine" in t and "split: test" in t for t in titles)


def test_the_confusion_matrix_is_that_of_the_probe_in_the_table(parsed):
    found = re.findall(
        r"([\d.]+) % of 500 test images \(the table has ([\d.]+) %\)", parsed.sections["confusion"]
    )
    assert len(found) == 2
    assert all(again == table for again, table in found)


def test_an_unfinished_run_is_shown_with_what_it_has(run, tmp_path, capsys):
    folder = tmp_path / "unfinished"
    folder.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(run / name, folder)
    assert report.main(["report", str(folder)]) == 0
    sections = Page((folder / "report.html").read_text()).sections
    assert "not finished: step 4, not scored" in sections["runs"]
    assert "holds no checkpoints" in sections["hardest-pairs"]
    assert "curves" in sections
    assert "holds no checkpoints" in capsys.readouterr().err


def test_what_is_no_run_is_refused(run, tmp_path):
    empty, begun = tmp_path / "empty", tmp_path / "begun"
    for folder in (empty, begun):
        folder.mkdir()
    shutil.copy(run / "config.json", begun)
    for folders, reason in (
        ([empty], "holds no run"),
        ([tmp_path / "nowhere"], "is no folder"),
        ([begun], "logged nothing yet"),
        ([run, run], "given twice"),
    ):
        with pytest.raises(ConfigError, match=reason) as error:
            report.main(["report", *map(str, folders)])
        assert error.value.exit_code == 2


def test_an_ablation_shows_its_verdict_table_and_figure(run, tmp_path):
    verdict = {"claim": "5 < 6 & so", "outcome": "not reproduced", "reasons": ["for one", "b"]}
    workdir.write_json(tmp_path / "verdict.json", verdict)
    table = "# Title\n\n5 < 6 & so\n\n- b\n\n| T | accuracy |\n|---|---|\n| **0.1** | 51.2 |\n"
    (tmp_path / "table.md").write_text(table)
    (tmp_path / "results.jsonl").write_text('{"cell": 1}\n{"cell": 2}\n')
    shutil.copy(run / "figures" / "scores.png", tmp_path / "figure.png")
    assert report.main(["report", str(tmp_path)]) == 0
    parsed = Page((tmp_path / "report.html").read_text())
    (shown,) = parsed.sections.values()
    for words in ("not reproduced", "5 < 6 & so", "for one", "0.1", "51.2", "2 results"):
        assert words in shown
    assert "Title" not in shown.split("The verdict in full")[0]  # the verdict is told once
    assert len(parsed.of("img")) == 1


def test_closest_pairs_are_those_of_a_slow_search():
    rng = np.random.default_rng(0)
    z, label = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    for same in (True, False):
        pairs = [
            p for p in itertools.combinations(range(30), 2) if (label[p[0]] == label[p[1]]) == same
        ]
        wanted, used = [], set()
        for i, j in sorted(pairs, key=lambda p: -unit[p[0]] @ unit[p[1]]):
            if not {i, j} & used:
                wanted.append([i, j])
                used |= {i, j}
        rows, cosine = features.closest_pairs(z, label, 5, same=same)
        assert rows.tolist() == wanted[:5]
        np.testing.assert_allclose(cosine, [unit[i] @ unit[j] for i, j in wanted[:5]], rtol=1e-6)


PROBE = """<script>addEventListener("load", () => console.log("seen", JSON.stringify({
  shown: [...document.images].map(i => i.naturalWidth > 0 && i.getBoundingClientRect().width > 100),
  width: document.documentElement.scrollWidth, window: innerWidth})))</script></body>"""


def test_a_browser_shows_every_picture_without_complaint(page, parsed, tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium on the PATH")
    text, picture = page.read_text(), tmp_path / "page.png"
    probed = text.replace("</body>", PROBE).replace(
        "img-src", "script-src 'unsafe-inline'; img-src"
    )
    (tmp_path / "page.html").write_text(probed)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    flags += [f"--screenshot={picture}", "--window-size=1280,4000", f"--user-data-dir={tmp_path}"]
    command = [browser, *flags, (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert len(said) == 1, done.stderr  # what the probe says, and not one error
    seen = json.loads(re.search(r"seen (\{.*\})", said[0])[1])
    assert seen["shown"] == [True] * len(parsed.of("img"))
    assert seen["width"] <= seen["window"]
    with Image.open(picture) as image:
        assert image.size == (1280, 4000)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    assert export.main(["export", str(run), "--to", str(folder)]) == 0
    return folder


def test_a_loaded_export_gives_the_features_of_the_run_bit_for_bit(run, exported):
    built, config = restore.rebuild(EXPERIMENT, run)
    state = restore.checkpoint(built, config, run, "latest").state
    image = built.dataset.test["image"][:64]
    embed = jax.jit(built.objective.embed)
    wanted = embed(state.params, state.model_state, {"image": image})["features"]
    features = np.asarray(exports.load(exported).embed(image))
    np.testing.assert_array_equal(features, np.asarray(wanted))
    assert features.std() > 0


def test_the_card_says_what_was_trained_and_how_it_scored(run, exported):
    card = json.loads((exported / exports.CARD).read_text())
    summary = workdir.read_json(run / "results" / "summary.json")
    assert card["step"] == 4
    assert card["scores"]["evaluations"] == summary["evaluations"]
    assert card["config"]["loss"]["temperature"] == 0.2
    assert "data_dir" not in card["config"]["data"]
    assert card["data"]["train_images"] == 1297
    assert card["preprocessing"]["size"] == 16
    assert {"jax", "flax"} <= set(card["versions"]["trained"])


def test_a_step_without_scores_has_a_card_without_them(run, tmp_path, capsys):
    assert export.main(["export", str(run), "--to", str(tmp_path), "--step", "2"]) == 0
    assert "no scores of step 2" in capsys.readouterr().err
    card = json.loads((tmp_path / exports.CARD).read_text())
    assert (card["step"], card["scores"]) == (2, None)
    with pytest.raises(ConfigError, match="--step 3: the checkpoints are"):
        export.main(["export", str(run), "--to", str(tmp_path), "--step", "3"])


def test_what_is_no_run_is_not_exported(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        export.main(["export", str(Path(tmp_path)), "--to", str(tmp_path / "to")])

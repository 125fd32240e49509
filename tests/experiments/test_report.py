"""`experiments.report`: one self-contained file that shows what run and ablation folders hold."""

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments import report
from experiments.reporting import content, features, folders, render

pytestmark = pytest.mark.usefixtures("without_a_compilation_cache")
ODD_NAME = 'b<i>&"'  # breaks a page that does not escape it
KNN = {"name": "knn", "metric": "cosine", "k": 10, "k_requested": 10, "temperature": None}


def copy_of(run: Path, to: Path, **changes) -> Path:
    """A copy of a run whose config.json has other values, by "section__key" or at the top."""
    shutil.copytree(run, to)
    description = workdir.read_json(to / "config.json")
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            description["config"][section][key] = value
        else:
            description[section] = value
    workdir.write_json(to / "config.json", description)
    return to


@pytest.fixture(scope="module")
def other(finished_run, tmp_path_factory):
    """The same run as if at another temperature, in a folder with an awkward name."""
    folder = tmp_path_factory.mktemp("other") / ODD_NAME
    return copy_of(finished_run, folder, loss__temperature=0.75)


@pytest.fixture(scope="module")
def page(finished_run, other, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "report.html"
    assert report.main(["report", str(finished_run), str(other), "--to", str(target)]) == 0
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


def test_every_picture_is_in_the_page(parsed, finished_run):
    images = [image["src"] for image in parsed.of("img")]
    saved = {path.stem for path in (finished_run / "figures").glob("*.png")} - {"curves"}
    assert {"views", "map_features", "cosines", "scores"} <= saved
    computed = 3  # two kinds of pairs, a confusion matrix
    assert len(images) == 2 * (len(saved) + computed) + 1  # and the curves of both runs
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


def test_the_name_of_a_run_is_escaped(parsed, page):
    assert all("style" in a for a in parsed.of("i"))
    assert ODD_NAME in parsed.sections["runs"]
    assert ODD_NAME not in page.read_text()


def test_every_kind_of_text_is_escaped(tmp_path):
    def script(kind: str) -> str:
        return f"<script>{kind}</script>"

    row = {"representation": "trained", "layer": "features", "value": 0.5}
    row |= {"protocol": {**KNN, "note": script("protocol")}, "measure": script("measure")}
    run = folders.Run(
        name=script("run"),
        folder=tmp_path,
        method=script("method"),
        config={"data.name": script("config")},
        description={"command": script("command"), "data": {"class_names": [script("class")]}},
        history=[],
        results={"summary": {"evaluations": [row], "diagnostics": {script("layer"): {"a": 1.0}}}},
        other_results={"other": script("result")},
        figures={},
    )
    table = f"| cell |\n|---|\n| {script('cell')} |\n\n- `a`, seed 0: {script('crash')} (lost)\n"
    table += f"\n[{script('link')}](https://example.com) ![](https://example.com/picture.png)\n"
    verdict = {"claim": script("claim"), "outcome": script("outcome"), "reasons": [script("why")]}
    ablation = folders.Ablation(script("ablation"), script("line"), table, None, verdict)
    findings = {run.name: dict.fromkeys(features.NAMES, script("error"))}
    text = render.page(content.of([run], [ablation], findings, tmp_path))
    parsed = Page(text)
    assert "<script" not in text
    assert {name for name, _ in parsed.elements} & {"script", "img"} == set()
    assert [a["href"] for a in parsed.of("a") if not a["href"].startswith("#")] == []
    titles = [a["title"] for a in parsed.of("td") if "title" in a]
    shown = "\n".join([*parsed.sections.values(), *titles])
    kinds = "run method config command class protocol measure layer result cell crash link claim"
    for kind in [*kinds.split(), "outcome", "why", "ablation", "line", "error"]:
        assert script(kind) in shown, kind


def test_the_difference_of_configs_is_the_keys_that_differ(parsed):
    shown = parsed.sections["what-differs"].split()
    assert shown[-3:] == ["loss.temperature", "0.2", "0.75"]
    assert "train.seed" not in shown


def test_every_score_has_its_interval_and_its_protocol(parsed, finished_run):
    rows = workdir.read_json(finished_run / "results" / "summary.json")["evaluations"]
    shown = parsed.sections["scores"]
    for row in rows:
        low, high = row["ci95"]
        assert f"{100 * row.get('value', row.get('accuracy')):.1f}\n" in shown
        assert f"{100 * low:.1f} to {100 * high:.1f}" in shown
    titles = [a["title"] for a in parsed.of("td") if "title" in a]
    assert len(titles) == 2 * len(rows)
    assert any("k: 20" in t and "metric: cosine" in t and "split: test" in t for t in titles)


def test_the_confusion_matrix_is_that_of_the_probe_in_the_table(parsed):
    found = re.findall(
        r"([\d.]+) % of 12 test images \(the table has ([\d.]+) %\)", parsed.sections["confusion"]
    )
    assert len(found) == 2
    assert all(again == table for again, table in found)


def shown_of(folder: Path) -> dict[str, str]:
    """The text of each section of the report on one folder."""
    assert report.main(["report", str(folder)]) == 0
    return Page((folder / "report.html").read_text()).sections


def test_an_unfinished_run_is_shown_with_what_it_has(finished_run, tmp_path, capsys):
    folder = tmp_path / "unfinished"
    folder.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(finished_run / name, folder)
    sections = shown_of(folder)
    assert "not finished: step 4, not scored" in sections["runs"]
    assert "holds no checkpoints" in sections["hardest-pairs"]
    assert "curves" in sections
    assert "holds no checkpoints" in capsys.readouterr().err


def test_without_the_data_all_that_the_folder_holds_is_shown(finished_run, parsed, tmp_path):
    there = {"source": "tfds", "name": "absent", "data_dir": str(tmp_path), "batch_size": 8}
    known = {"name": "absent", "train": 1297, "test": 500, "image_shape": [8, 8, 1]}
    known |= {"class_names": ["zero", "one"]}
    folder = copy_of(finished_run, tmp_path / "run", data=known)
    description = workdir.read_json(folder / "config.json")
    workdir.write_json(
        folder / "config.json", {**description, "config": {**description["config"], "data": there}}
    )
    sections = shown_of(folder)
    assert set(sections) == set(parsed.sections) - {"what-differs"}
    for name in ("hardest-pairs", "confusion"):
        assert "could not be computed. DataError" in sections[name]
    assert "1,297 train, 500 test, 8x8x1, 2 classes" in sections["runs"]
    assert "zero, one" in sections["runs"]


@pytest.mark.parametrize(
    ("recorded", "section", "method", "shown"),
    [
        ({}, "loss", "simclr", "nt_xent, temperature=0.2"),
        ({}, "moco", "moco", "queue_size=4096, momentum=0.99"),
        ({"method": "byol"}, "byol", "byol", "tau=0.996"),
        ({"method": "byol"}, "none", "byol", "byol"),
    ],
)
def test_a_run_of_any_method_is_described(tmp_path, recorded, section, method, shown):
    sections = {
        "loss": {"kind": "nt_xent", "temperature": 0.2},
        "moco": {"queue_size": 4096, "momentum": 0.99},
        "byol": {"tau": 0.996},
        "none": {},
    }
    config = {"encoder": {"name": "vit", "depth": 2, "dropout": None}, section: sections[section]}
    workdir.write_json(tmp_path / "config.json", {**recorded, "config": config})
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (run,), _ = folders.read([tmp_path])
    assert run.method == method
    lines = shown_of(tmp_path)["runs"]
    assert shown in lines
    assert "vit, depth=2\n" in lines


def opened(n_train=20, n_test=8, channels=1, n_classes=2, labels=True):
    """A restored run whose features are random, and the score of its linear probe."""
    rng = np.random.default_rng(0)

    def examples(n):
        image = rng.integers(0, 255, (n, 4, 4, channels), np.uint8)
        return {"image": image, **({"label": np.arange(n) % n_classes} if labels else {})}

    names = tuple(f"class {i}" for i in range(n_classes))
    dataset = SimpleNamespace(train=examples(n_train), test=examples(n_test), class_names=names)
    config = ConfigDict({"eval": {"probe_steps": 5}})
    run = SimpleNamespace(dataset=dataset, plan=SimpleNamespace(seed=0), config=config)
    return (
        run,
        3,
        lambda image: dict.fromkeys(
            ("features", "embedding"), rng.normal(size=(len(image), 4)).astype(np.float32)
        ),
    )


def found_in(tmp_path, monkeypatch, **data):
    """What `features.draw` finds in such a run."""
    monkeypatch.setattr(features, "_open", lambda run: opened(**data))
    protocol = {"name": "linear", "l2": 0.1, "train_size": 12}
    row = {"representation": "trained", "layer": "features", "protocol": protocol, "value": 0.5}
    results = {"summary": {"step": 3, "evaluations": [row]}}
    run = folders.Run("a", tmp_path, "simclr", {}, {}, [], results, {}, {})
    return features.draw(run, tmp_path)


@pytest.mark.parametrize("data", [{}, {"n_test": 1}, {"channels": 3}, {"n_classes": 7}])
def test_pairs_and_confusion_are_drawn_for_any_sound_data(tmp_path, monkeypatch, data):
    found = found_in(tmp_path, monkeypatch, **data)
    assert [name for name in features.NAMES if isinstance(found[name], str)] == []
    assert f"{data.get('n_test', 8)} test images" in found["confusion"][1]


@pytest.mark.parametrize(
    ("data", "name", "why"),
    [
        ({"labels": False}, "negatives", "the training images have no labels"),
        ({"labels": False}, "confusion", "the training images have no labels"),
        ({"n_classes": 1}, "negatives", "no pair of two classes"),
        ({"n_train": 2}, "false negatives", "no pair of one class"),
        ({"n_train": 0}, "confusion", "the training images have no labels"),
    ],
)
def test_what_cannot_be_drawn_is_a_note_saying_why(tmp_path, monkeypatch, data, name, why):
    assert why in found_in(tmp_path, monkeypatch, **data)[name]


def test_a_picture_that_fails_costs_only_itself(tmp_path, monkeypatch):
    def fails(*arguments):
        raise IndexError("no such channel")

    monkeypatch.setattr(features.figures, "image_pairs", fails)
    found = found_in(tmp_path, monkeypatch, channels=2)
    assert found["negatives"] == "could not be drawn. IndexError: no such channel"
    assert isinstance(found["confusion"], tuple)


def test_a_damaged_picture_is_a_note(finished_run, tmp_path):
    folder = copy_of(finished_run, tmp_path / "run")
    (folder / "figures" / "views.png").write_bytes(b"\x89PNG")
    assert report.main(["report", str(folder), "--quick"]) == 0
    sections = Page((folder / "report.html").read_text()).sections
    assert "views.png is no PNG" in sections["augmented-views"]
    assert "hardest-pairs" not in sections


def test_what_is_no_run_is_refused(finished_run, tmp_path):
    empty, started = tmp_path / "empty", tmp_path / "started"
    for folder in (empty, started):
        folder.mkdir()
    shutil.copy(finished_run / "config.json", started)
    for given, reason in (
        ([empty], "holds no run"),
        ([tmp_path / "nowhere"], "is no folder"),
        ([started], "logged nothing yet"),
        ([finished_run, finished_run], "given twice"),
    ):
        with pytest.raises(ConfigError, match=reason) as error:
            report.main(["report", *map(str, given)])
        assert error.value.exit_code == 2


@pytest.mark.parametrize("bad", ["file/report.html", "folder"])
def test_a_place_that_cannot_be_written_is_an_error_of_its_flag(finished_run, tmp_path, bad):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="--to") as error:
        report.main(["report", str(finished_run), "--quick", "--to", str(tmp_path / bad)])
    assert "workdir" not in str(error.value)


def test_scores_stand_before_pictures_and_details_are_folded(page):
    text = page.read_text()
    assert text.index('id="scores"') < text.index("<img ")
    folded = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert "pre><code" not in folded
    assert 'id="what-differs"' in folded


def test_an_ablation_shows_its_verdict_table_and_figure(finished_run, tmp_path):
    verdict = {"claim": "5 < 6 & so", "outcome": "not reproduced", "reasons": ["for one", "b"]}
    workdir.write_json(tmp_path / "verdict.json", verdict)
    table = "# Title\n\n5 < 6 & so\n\n- b\n\n| T | accuracy |\n|---|---|\n| **0.1** | 51.2 |\n"
    (tmp_path / "table.md").write_text(table)
    (tmp_path / "results.jsonl").write_text('{"cell": 1}\n{"cell": 2}\n')
    shutil.copy(finished_run / "figures" / "scores.png", tmp_path / "figure.png")
    assert report.main(["report", str(tmp_path)]) == 0
    parsed = Page((tmp_path / "report.html").read_text())
    (shown,) = parsed.sections.values()
    for expected in ("not reproduced", "5 < 6 & so", "for one", "0.1", "51.2", "2 results"):
        assert expected in shown
    assert "Title" not in shown.split("The verdict in full")[0]  # the verdict is shown once
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
    logged = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert len(logged) == 1, done.stderr  # what the probe logs, and not one error
    seen = json.loads(re.search(r"seen (\{.*\})", logged[0])[1])
    assert seen["shown"] == [True] * len(parsed.of("img"))
    assert seen["width"] <= seen["window"]
    with Image.open(picture) as image:
        assert image.size == (1280, 4000)

"""README and docs: their code runs, what they name exists, their tables equal the evidence."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import publish
from experiments import export

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted(ROOT.glob("docs/*.md")))
WALK = ROOT / "docs" / "adding-a-method.md"
QUICK = (
    "--config.eval.figures=False",
    "--config.eval.labels_per_class=0",
    "--config.eval.baselines=False",
)
PRIVATE = "house|gauges?|struck|begun|trainee|culprits?|looks|lanes?|sheets?|levers?|rotted|rots"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Every command of the pages, in blocks and in running text, with its page."""
    found = []
    for page in PAGES:
        lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
        lines += re.findall(r"`(python [^`]+)`", page.read_text())
        found += [(page.name, line.split(" #")[0]) for line in lines]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory, in_the_repository_of_a_module):
    """A folder with what the pages speak of: a run of the notebook, and its exported encoder."""
    folder = tmp_path_factory.mktemp("docs")
    code = ["".join(c["source"]) for c in cells() if c["cell_type"] == "code"]
    values = 'CONFIG, RUN = "configs/digits.py", "runs/quickstart"'
    assert values in "\n".join(code)
    quick = f'CONFIG, RUN = "configs/digits.py:smoke", {str(folder / "runs" / "digits")!r}'
    scope: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        for cell in code:
            exec(compile(cell.replace(values, quick), NOTEBOOK.name, "exec"), scope)
            assert "done" not in scope or scope["done"].returncode == 0, scope["done"].stderr
        scope["pyplot"].close("all")
    assert scope["mean_loss"](scope["first"], scope["first"]) < 1.0
    words = ["export", str(folder / "runs" / "digits"), "--to", str(folder / "exported" / "digits")]
    assert export.main(words) == 0
    return folder


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text())["cells"]


def test_the_notebook_is_stripped():
    for cell in cells():
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


WITH_CODE = [page for page in PAGES if page != WALK and blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, finished, monkeypatch):
    monkeypatch.chdir(finished)
    exec(compile("\n".join(blocks(page, "python")), page.name, "exec"), {})


def test_the_method_of_the_walk_through_is_trained_and_scored(tmp_path):
    """The page's files in a copy of the project, its line in the table of methods, its commands."""
    for folder in ("contrastive_jax", "experiments", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for block in blocks(WALK, "python"):
        path = re.match(r"# file: (\S+)\n", block)
        assert path, "each block of the page is a file"
        assert not (ROOT / path[1]).exists()
        (tmp_path / path[1]).write_text(block)
    for diff in blocks(WALK, "diff"):
        edit(tmp_path, diff)
    lines = [
        shlex.split(line, comments=True) for line in "".join(blocks(WALK, "bash")).splitlines()
    ]
    assert {tuple(words[:2]) for words in lines} == {("python", "-m")}
    wanted = [[*words[2:], *(QUICK if "--config" in words else ())] for words in lines]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "in_turn.py", json.dumps(wanted)],
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def edit(root: Path, diff: str) -> None:
    """Apply a diff of added lines, each after the line that stands before it."""
    head, *lines = diff.splitlines()
    path = root / head.removeprefix("+++ ")
    text = path.read_text()
    for before, line in zip(lines, lines[1:], strict=False):
        if line.startswith("+"):
            assert text.count(f"{before[1:]}\n") == 1, f"{path} has no line {before[1:]!r}"
            text = text.replace(f"{before[1:]}\n", f"{before[1:]}\n{line[1:]}\n")
    path.write_text(text)


def test_commands_name_what_exists():
    missing = []
    for page, command in commands():
        modules = re.findall(r"python -m ((?:experiments|benchmarks)[\w.]*)", command)
        files = [module.replace(".", "/") + ".py" for module in modules]
        files += re.findall(r"python (benchmarks/\S+\.py)", command)
        files += re.findall(r"(?<!\S)(?:\./)?(scripts/\S+|\.ci/run)", command)
        missing += [(page, file) for file in files if not exists(file)]
    assert len(commands()) > 30
    assert not missing


def exists(file: str) -> bool:
    """Whether the project has a file, or the walk-through adds it."""
    return (ROOT / file).is_file() or f"# file: {file}\n" in WALK.read_text()


def test_configs_of_commands_exist_and_know_their_preset(in_the_repository):
    found = {c for _, command in commands() for c in re.findall(r"configs/\S+?\.py\S*", command)}
    for path, _, preset in sorted(config.partition(":") for config in found):
        assert exists(path)
        if (ROOT / path).is_file():
            module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            module.get_config(*[preset] if preset else [])


def test_links_and_pictures_lead_somewhere():
    texts = {page: re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL) for page in PAGES}
    texts[NOTEBOOK] = "\n".join("".join(cell["source"]) for cell in cells())
    broken = []
    for page, text in texts.items():
        for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
            target, _, anchor = link.partition("#")
            path = page.parent / target if target else page
            if not path.exists() or (anchor and anchor not in anchors(path)):
                broken.append((page.name, link))
    assert not broken


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_tables_are_those_of_the_evidence():
    assert not publish.stale(), "python -m benchmarks.publish --write"


def test_the_readme_is_short_and_shows_what_was_measured():
    text = PAGES[0].read_text()
    assert len(text.splitlines()) <= 220
    assert "not measured" not in text
    assert (ROOT / "docs/images/overview.png").stat().st_size < 200_000


def test_pages_use_the_terms_of_the_field():
    found = {
        (page.name, word)
        for page in PAGES
        for word in re.findall(rf"\b(?:{PRIVATE}|passed over)\b", page.read_text(), re.IGNORECASE)
    }
    assert not found

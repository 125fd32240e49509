"""Share one uninterrupted run between all tests; run the same tests on broken code."""

import fcntl
import itertools
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

from tests.faults import commands, sabotage
from tests.faults.commands import KINDS, Ended, Kind, Running

OUTCOMES: dict[int, list[bool]] = {}


class Lab(NamedTuple):
    """A command, an uninterrupted run of it, and a place for others."""

    kind: Kind
    uninterrupted: Path
    digest: str
    place: Path
    logs: Iterator[int]
    started: list[Running]

    def start(self, workdir: Path | str | None, *arguments: str, **settings: Any) -> Running:
        log = self.place / f"log{next(self.logs)}"
        settings = {"kind": self.kind, **settings}
        running = commands.start(settings.pop("kind"), workdir, *arguments, log=log, **settings)
        self.started.append(running)
        return running

    def run(self, workdir: Path | str | None, *arguments: str, **settings: Any) -> Ended:
        return self.start(workdir, *arguments, **settings).end()

    def copy(self, name: str = "copy") -> Path:
        """Copy the uninterrupted run as it was after step 9, of which it has a checkpoint."""
        folder = shutil.copytree(self.uninterrupted, self.place / name)
        shutil.rmtree(folder / "checkpoints" / "12")
        shutil.rmtree(folder / "results", ignore_errors=True)
        return folder

    def finishes_like_the_uninterrupted_run(
        self, workdir: Path, resumed_from: int | None, *faults: str
    ) -> Ended:
        """Start the same command again; it has to end as if nothing had happened."""
        ended = self.run(workdir, faults=(*faults, "unscored"))
        assert ended.code == 0, ended
        if resumed_from is not None:
            assert f"resumed from step {resumed_from}" in ended.out, ended.out
        assert commands.digest_of(ended) == self.digest
        rows = (workdir / "metrics.jsonl").read_text()
        assert rows == (self.uninterrupted / "metrics.jsonl").read_text()
        return ended


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sabotaged", action="store_true", help="break the code: all must fail")
    parser.addoption("--record", help="write which rows went as wanted to this JSON file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("fault")
        if mark is not None:
            item.user_properties += [("row", number) for number in mark.args]
            if config.getoption("sabotaged", False):
                item.add_marker(pytest.mark.xfail(raises=AssertionError, strict=True))


@pytest.fixture(autouse=True)
def _broken_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    mark = request.node.get_closest_marker("fault")
    if mark is None or not request.config.getoption("sabotaged", False):
        yield
        return
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab")  # the uninterrupted run is made by the code as it is
    monkeypatch.setenv("FAULTS_SABOTAGE", mark.kwargs["broken"])
    sabotage.apply(mark.kwargs["broken"])
    yield
    sabotage.mend()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """Map the name of a kind to its uninterrupted run, made once, and the digest of its state."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared

    def make(name: str) -> tuple[Path, str]:
        place = shared / f"uninterrupted-{name}"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / "digest").exists():
                place.mkdir(exist_ok=True)
                lab = Lab(KINDS[name], place, "", place, itertools.count(), [])
                ended = lab.run(place / "run", "--config.checkpoint.keep=9", faults=("unscored",))
                assert ended.code == 0, ended
                (place / "digest").write_text(commands.digest_of(ended))
        return place / "run", (place / "digest").read_text()

    return make


@pytest.fixture(params=["toy", pytest.param("simclr", marks=pytest.mark.slow)])
def lab(request: pytest.FixtureRequest, uninterrupted: Callable, tmp_path: Path) -> Iterator[Lab]:
    """The toy, and before a release the real command too."""
    run, digest = uninterrupted(request.param)
    yield from _lab(Lab(KINDS[request.param], run, digest, tmp_path, itertools.count(), []))


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Lab]:
    """The toy, for faults that are met before the first step."""
    yield from _lab(Lab(KINDS["toy"], tmp_path, "", tmp_path, itertools.count(), []))


def _lab(lab: Lab) -> Iterator[Lab]:
    yield lab
    for running in lab.started:
        if running.code() is None:
            running.process.kill()
            running.end()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        failed_as_it_should = report.skipped and hasattr(report, "wasxfail")
        for name, number in report.user_properties:
            if name == "row":
                OUTCOMES.setdefault(number, []).append(report.passed or failed_as_it_should)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("record", None)
    if path and not os.environ.get("PYTEST_XDIST_WORKER"):
        machine = {
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "jax": jax.__version__,
        }
        rows = {str(n): {"tests": len(o), "passed": sum(o)} for n, o in OUTCOMES.items()}
        before = json.loads(Path(path).read_text()) if Path(path).exists() else {}
        if before.get("machine") == machine:  # the rows that did not run now keep what they had
            rows = {**before["rows"], **rows}
        rows = {n: rows[n] for n in sorted(rows, key=int)}
        Path(path).write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")

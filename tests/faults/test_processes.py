"""Several processes train as one does; what ends one of them ends all, and nothing is lost."""

import json
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from contrastive_jax.errors import ConfigError
from experiments.run import multihost
from tests.faults import commands
from tests.faults.commands import KINDS, Ended, Kind, Running, committed, rows
from tests.faults.rows import row

ACROSS = Kind("tests.faults.across", (), True)
PEER_DIED = (134, -signal.SIGABRT)  # by this project, or by JAX's runtime
NAMES = ("loss", "grad_norm")


class Team(NamedTuple):
    """A command, and a place for its runs by several processes."""

    kind: Kind
    place: Path
    started: list[Running]

    def start(
        self,
        workdir: Path | None,
        *arguments: str,
        count: int = 2,
        devices: int = 4,
        each: Sequence[dict[str, Any]] = ({}, {}, {}, {}),
        kind: Kind | None = None,
    ) -> list[Running]:
        """`each` may name further `arguments`, `faults` and another `workdir` of a process."""
        port = free_port()
        team = []
        for i in range(count):
            special = each[i]
            joining = (f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}")
            place = (*joining, f"--process_id={i}") if count > 1 else ()
            env = commands.with_devices(devices // count)
            team.append(
                commands.start(
                    kind or self.kind,
                    special.get("workdir", workdir),
                    *place,
                    *arguments,
                    *special.get("arguments", ()),
                    faults=special.get("faults", ("patient",)),
                    log=self.place / f"log{len(self.started)}",
                    env=env,
                )
            )
            self.started.append(team[-1])
        return team

    def run(self, workdir: Path | None, *arguments: str, **settings: Any) -> list[Ended]:
        return [running.end() for running in self.start(workdir, *arguments, **settings)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def make_team(name: str, place: Path) -> Iterator[Team]:
    (place / "logs").mkdir()
    team = Team(KINDS[name], place / "logs", [])
    yield team
    for running in team.started:
        if running.code() is None:
            running.process.kill()
            running.end()


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    yield from make_team("toy", tmp_path)


class Uninterrupted(NamedTuple):
    """An uninterrupted run of two processes with two devices each."""

    kind: str
    workdir: Path
    ended: list[Ended]

    @property
    def digest(self) -> str:
        return commands.digest_of(self.ended[0])


@pytest.fixture(scope="module", params=["toy", pytest.param("simclr", marks=pytest.mark.slow)])
def uninterrupted(request, tmp_path_factory) -> Iterator[Uninterrupted]:
    place = tmp_path_factory.mktemp(f"processes-{request.param}")
    for team in make_team(request.param, place):
        ended = team.run(place / "run")
        assert [e.code for e in ended] == [0, 0], ended
        yield Uninterrupted(request.param, place / "run", ended)


@pytest.fixture
def same_kind(uninterrupted: Uninterrupted, tmp_path: Path) -> Iterator[Team]:
    """Make a team for the command of the uninterrupted run."""
    yield from make_team(uninterrupted.kind, tmp_path)


def curve(workdir: Path, name: str) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines]


def scores(workdir: Path) -> dict[tuple, float]:
    """Accuracies by what was scored and how; rounding may choose between equally good l2."""
    summary = json.loads((workdir / "results" / "summary.json").read_text())
    found = {}
    for score in summary["evaluations"]:
        how = score["protocol"]["name"], score["protocol"].get("k")
        found[score["representation"], score["layer"], *how] = score["value"]
    return found


def assert_resumes_like(uninterrupted: Uninterrupted, team: Team, workdir: Path, step: int) -> None:
    """The same command again ends bit-equal to the uninterrupted run."""
    ended = team.run(workdir, each=[{"faults": ("patient", "unscored")}] * 2)
    assert [e.code for e in ended] == [0, 0], ended
    assert f"resumed from step {step}" in ended[0].out
    assert commands.digest_of(ended[0]) == uninterrupted.digest
    written = (workdir / "metrics.jsonl").read_text()
    assert written == (uninterrupted.workdir / "metrics.jsonl").read_text()


@pytest.mark.parametrize("count", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_processes_trains_and_scores_alike(uninterrupted, same_kind, tmp_path, count):
    ended = same_kind.run(tmp_path / "run", count=count)
    assert [e.code for e in ended] == [0] * count, ended
    for name in NAMES:
        want = curve(uninterrupted.workdir, name)
        np.testing.assert_allclose(curve(tmp_path / "run", name), want, rtol=1e-3)
    first = curve(uninterrupted.workdir, "loss")[0]  # before rounding has grown
    np.testing.assert_allclose(curve(tmp_path / "run", "loss")[0], first, rtol=1e-5)
    got, want = scores(tmp_path / "run"), scores(uninterrupted.workdir)
    assert got.keys() == want.keys()
    np.testing.assert_allclose(list(got.values()), [want[key] for key in got], atol=0.1)


# What Gloo says of itself, piece by piece: it prints from several threads, one into another's line.
_GLOO = re.compile(
    r"\[Gloo\]|Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is|:|\d+"
)


def test_only_the_first_process_speaks(uninterrupted):
    first, second = (ended.out for ended in uninterrupted.ended)
    assert any("4 x cpu" in line for line in first.splitlines())
    assert any(line.split()[:1] == ["processes"] for line in first.splitlines())
    assert _GLOO.sub("", second).split() == []
    assert _GLOO.sub("", first).split() != []


def test_the_ring_and_its_gradient_across_processes_are_those_of_one(team):
    for ended in team.run(None, kind=ACROSS):
        assert ended.code == 0, ended
        assert "equal 4" in ended.err


@pytest.mark.slow
@row(3, broken="processes do not hear of each other's signals")
@pytest.mark.parametrize("process", [1, 0])
def test_sigterm_to_one_process_stops_all_at_the_same_step(
    uninterrupted, same_kind, tmp_path, process
):
    workdir = tmp_path / "run"
    each: list[dict] = [{}, {}]
    each[process] = {"faults": ("patient", "terminate:4")}
    team = same_kind.start(workdir, each=each)
    ended = [running.end(300) for running in team]
    assert [e.code for e in ended] == [75, 75], ended
    assert "SIGTERM: finishing this step and saving" in ended[process].err
    assert "stopped after step 5, saved" in ended[0].out
    assert max(committed(workdir)) == 5
    assert_resumes_like(uninterrupted, same_kind, workdir, 5)


@pytest.mark.slow
@row(22, broken="a dead process is not missed")
def test_a_killed_worker_ends_the_others_and_nothing_saved_is_lost(
    uninterrupted, same_kind, tmp_path
):
    kills_one(uninterrupted, same_kind, tmp_path / "run", 1)


@pytest.mark.slow
@row(23, broken="metrics.jsonl is not rewound")
def test_a_killed_coordinator_ends_the_others_and_nothing_saved_is_lost(
    uninterrupted, same_kind, tmp_path
):
    kills_one(uninterrupted, same_kind, tmp_path / "run", 0)


def kills_one(uninterrupted: Uninterrupted, team: Team, workdir: Path, victim: int) -> None:
    each: list[dict] = [{}, {}]
    each[victim] = {"faults": ("kill:8",)}
    each[1 - victim] = {"faults": ()}
    both = team.start(workdir, each=each)
    assert both[victim].end().code == -signal.SIGKILL
    other = both[1 - victim].end(300)
    assert other.code in PEER_DIED, other
    assert "another" in other.err, other.err
    assert max(committed(workdir)) in (3, 6)
    assert_resumes_like(uninterrupted, team, workdir, max(committed(workdir)))


@row(24, broken="the start is not watched")
@pytest.mark.parametrize("process", [0, 1])
def test_a_peer_that_never_starts_is_waited_for_so_long_and_named(team, tmp_path, process):
    arguments = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", "--start_timeout=2")
    log = team.place / "alone"
    arguments = (*arguments, f"--process_id={process}")
    running = commands.start(team.kind, tmp_path / "run", *arguments, log=log)
    team.started.append(running)
    commands.assert_short_error(running.end(120), 134, f"Process {process} of 2", "waited 2 s")
    assert not (tmp_path / "run").exists()


@row(24, broken="no address is named")
def test_a_taken_port_is_named(team, tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = (f"--coordinator={where}", "--num_processes=2", "--process_id=0")
        running = commands.start(team.kind, tmp_path / "run", *arguments, log=team.place / "alone")
        team.started.append(running)
        ended = running.end(120)
    assert ended.code == 134, ended
    assert where in ended.err
    assert "cannot join" in ended.err


@row(25, broken="processes need not agree")
def test_processes_that_disagree_stop_and_name_what_differs(team, tmp_path):
    each = [
        {},
        {"arguments": ("--config.optimizer.learning_rate=0.5", "--config.data.limit_train=64")},
    ]
    says = "optimizer.learning_rate: 0.001 in process 0, 0.5 in process 1"
    for ended in team.run(tmp_path / "run", each=each):
        commands.assert_short_error(ended, 2, says, "data.limit_train: 256")
    assert rows(tmp_path / "run") == []


@pytest.mark.slow
@row(25, broken="processes need not agree")
def test_a_workdir_that_is_not_shared_is_refused(team, tmp_path):
    each = [{}, {"workdir": tmp_path / "another"}]
    for ended in team.run(tmp_path / "run", each=each):
        commands.assert_short_error(ended, 2, "holder of the workdir")


def test_what_stops_one_process_at_the_start_stops_all_with_its_code(team, tmp_path):
    """The second one's data is missing."""
    each = [{}, {"faults": ("patient", "no_data")}]
    first, second = team.run(tmp_path / "run", each=each)
    commands.assert_short_error(second, 3, "injected")
    commands.assert_short_error(first, 3, "Process 1 stopped: injected")


def test_an_error_in_one_process_ends_the_others(team, tmp_path):
    """It shows its traceback, and does not wait for the others, as an exit of Python would."""
    each = [{}, {"faults": ("patient", "raises:6")}]
    started = commands.TOY._replace(forked=False)
    first, second = team.run(tmp_path / "run", each=each, kind=started)
    assert second.code == 1
    assert "ValueError: injected" in second.err
    assert first.code in PEER_DIED, first


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"coordinator": "a:1"}, "without --num_processes"),
        ({"process_id": "0"}, "without --coordinator"),
        ({"coordinator": "a:1", "num_processes": "2", "process_id": "2"}, "are 0 to 1"),
        ({"coordinator": "a:1", "num_processes": "2", "process_id": "-1"}, "process_id is '-1'"),
        ({"coordinator": "a", "num_processes": "2", "process_id": "0"}, "HOST:PORT"),
        ({"coordinator": "a:99999", "num_processes": "2", "process_id": "0"}, "HOST:PORT"),
        ({"num_processes": "0"}, "num_processes is '0'"),
        ({"num_processes": "2"}, "without --coordinator"),
        ({"start_timeout": "soon"}, "start_timeout is 'soon'"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(flags, says):
    with pytest.raises(ConfigError, match=says), multihost.joined(flags):
        pass

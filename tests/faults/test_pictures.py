"""Drawing costs no score: they are written first, and a picture that fails is a warning."""

import json
import signal

import matplotlib

from tests.faults.rows import row

DRAWN = ("--config.eval.figures=True", "--config.train.steps=3")


def summary(workdir):
    return json.loads((workdir / "results" / "summary.json").read_text())


@row(35, broken="a picture that fails ends the run")
def test_picture_that_cannot_be_drawn(toy):
    workdir = toy.place / "run"
    env = {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": matplotlib.get_cachedir()}  # has its fonts
    ended = toy.run(workdir, *DRAWN, faults=("undrawable",), env=env)
    assert ended.code == 0, ended
    for name in ("map_features", "map_embedding"):
        assert f"warning: the picture {name}.png was not drawn (LookupError: no font)" in ended.err
    assert ended.err.count("warning: the picture") == 2
    pictures = {path.stem for path in (workdir / "figures").iterdir()}
    assert pictures == {"views", "cosines", "curves", "neighbors", "scores"}
    assert summary(workdir)["evaluations"]


@row(36, broken="pictures come before scores")
def test_kill_9_while_pictures_are_drawn(toy):
    workdir = toy.place / "run"
    ended = toy.run(workdir, *DRAWN, faults=("kill_in_pictures",))
    assert ended.code == -signal.SIGKILL, ended
    assert (workdir / "results" / "summary.json").exists()
    assert summary(workdir)["evaluations"]
    scored = summary(workdir)
    again = toy.run(workdir, *DRAWN)
    assert again.code == 0, again
    pictures = {path.stem for path in (workdir / "figures").iterdir()}
    assert {"views", "cosines", "curves", "neighbors", "scores", "map_features"} <= pictures
    assert summary(workdir)["evaluations"] == scored["evaluations"]
    assert summary(workdir)["seconds"]["training"] == scored["seconds"]["training"]
    assert f"{workdir} is complete" in toy.run(workdir, *DRAWN).out

"""Bad input gets three lines at most, exit code 2, and no compilation."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from contrastive_jax.errors import ConfigError
from experiments.run import command_line, lifecycle
from experiments.simclr import EXPERIMENT

ROOT = Path(__file__).parents[2]
SECTIONS = {**lifecycle.SHARED_SECTIONS, **EXPERIMENT.sections}
CONFIG = "--config=configs/digits.py:smoke"


pytestmark = pytest.mark.usefixtures("in_the_repository")


@pytest.fixture
def run(capsys, monkeypatch):
    """The experiment's command: words -> (exit code, stderr)."""
    return lambda *words: _run(words, capsys, monkeypatch)


def _run(words, capsys, monkeypatch) -> tuple[int, str]:
    argv = ["experiments/simclr.py", *words]
    monkeypatch.setattr("sys.argv", argv)  # ml_collections looks for overrides there
    with pytest.raises(SystemExit) as exit_info:
        command_line.exit_with(lambda _: lifecycle._main(EXPERIMENT, argv))
    return exit_info.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "No config was given"),
        (("--config=configs/nope.py",), 2, "no config file 'configs/nope.py'"),
        (("--config=configs/digits.py:smok",), 2, "preset 'smok' is unknown"),
        ((CONFIG, "--config.loss.temperatur=0.5"), 2, "temperature"),
        ((CONFIG, "--config.los.temperature=0.5"), 2, "los"),
        ((CONFIG, "--config.loss.temperature=abc"), 2, "temperature"),
        ((CONFIG, "--config.loss.temperature=nan"), 2, "config.loss.temperature is nan"),
        ((CONFIG, "--config.loss.temperature=-1."), 2, "temperature is -1.0; give a positive"),
        ((CONFIG, "--config.loss.kind=nt_xnet"), 2, "'nt_xnet'; give one of"),
        ((CONFIG, "--config.optimizer.learning_rate=inf"), 2, "learning_rate is inf"),
        ((CONFIG, "--config.optimizer.name=sdg"), 2, "'sdg'; give one of"),
        ((CONFIG, "--config.encoder.depth=19"), 2, "encoder depth is 19"),
        ((CONFIG, "--config.augment.hue=2."), 2, "hue"),
        ((CONFIG, "--config.train.epochs=0."), 2, "train lasts 0 steps"),
        ((CONFIG, "--config.train.seed=-1"), 2, "train.seed is -1"),
        ((CONFIG, "--config.data.batch_size=250"), 2, "nearest that they do: 248 or 256"),
        ((CONFIG, "--config.data.batch_size=-8"), 2, "batch_size is -8"),
        ((CONFIG, "--config.data.batch_size=1304"), 2, "1304"),
        ((CONFIG, "--config.checkpoint.every_steps=0"), 2, "every_steps"),
        ((CONFIG, "--config.eval.probe_steps=0"), 2, "eval.probe_steps is 0"),
        ((CONFIG, "junk"), 2, "'junk' belongs to no flag"),
        ((CONFIG, "--wrkdir=x"), 2, "wrkdir"),
        (("--config=configs/cifar.py:smoke", "--config.data.data_dir=/nowhere"), 3, "prepare"),
    ],
)
def test_bad_input_is_refused_in_three_lines(words, code, says, run, tmp_path):
    workdir = () if "--wrkdir=x" in words else (f"--workdir={tmp_path / 'run'}",)
    got, err = run(*words, *workdir)
    assert got == code
    assert says in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) <= 3


def test_a_workdir_under_a_file_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, err = run(CONFIG, f"--workdir={tmp_path}/file/run")
    assert code == 2
    assert "is a file" in err


def test_help_prints_the_usage(capsys):
    with pytest.raises(SystemExit) as exit_info:
        command_line.parse(["simclr", "--help"], "how to use it")
    assert exit_info.value.code == 0
    assert "how to use it" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        f"{path.name}{preset}"
        for path in sorted((ROOT / "configs").glob("[a-z]*.py"))
        for preset in ("", ":smoke")
    ],
)
def test_every_config_has_the_keys_of_the_functions_that_read_it(words):
    command = command_line.parse(["simclr", f"--config=configs/{words}"], "")
    command_line.check(command.config, SECTIONS)


def test_a_section_or_key_that_nothing_reads_is_named():
    sections = {"loss": ("kind", "temperature")}
    with pytest.raises(ConfigError, match="'tempreature' is no key of 'loss'; did you mean"):
        command_line.check(ConfigDict({"loss": {"tempreature": 1.0}}), sections)
    with pytest.raises(ConfigError, match="'lss' is no section; did you mean 'loss'"):
        command_line.check(ConfigDict({"lss": {}, "loss": {}}), sections)
    with pytest.raises(ConfigError, match="no section 'loss'"):
        command_line.check(ConfigDict({}), sections)


def test_config_headers_say_how_to_run_them():
    for path in (ROOT / "configs").glob("[a-z]*.py"):
        assert f"--config configs/{path.name}" in path.read_text().split('"""')[1], path


@pytest.mark.parametrize("word", ["loss.temperature=-1.", "checkpoint.every_steps=0"])
def test_nothing_is_left_behind_by_a_refused_run(word, run, tmp_path):
    run(CONFIG, f"--config.{word}", f"--workdir={tmp_path / 'run'}")
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.name != ".lock"]
    assert left == []

"""Bad input gets three lines at most, exit code 2, and no compilation."""

import os
import re
import sys
import threading
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from contrastive_jax.errors import ConfigError
from experiments.run import command_line, lifecycle, methods, multihost
from experiments.run.methods import METHODS
from experiments.run.sections import complete, takes
from experiments.simclr import EXPERIMENT

ROOT = Path(__file__).parents[2]
SECTIONS = EXPERIMENT.all_sections()
CONFIG = "--config=configs/digits.py:smoke"


pytestmark = pytest.mark.usefixtures("in_the_repository")


@pytest.fixture
def run(capsys):
    """The experiment's command: arguments -> (exit code, stderr)."""

    def call(*arguments) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit_info, command_line.exit_codes():
            multihost.leave(lifecycle.main(EXPERIMENT, ["experiments/simclr.py", *arguments]))
        return exit_info.value.code, capsys.readouterr().err

    return call


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
        (
            (CONFIG, "--config.loss.kind=nt_xnet"),
            2,
            "'nt_xnet'; did you mean 'nt_xent'?\nGive one of",
        ),
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


def test_a_reader_that_left_costs_no_traceback(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:  # its end writes out what is left
        monkeypatch.setattr(sys, "stdout", nobody)
        with pytest.raises(SystemExit) as ended, command_line.exit_codes():
            command_line.parse(["simclr", "--help"], "how to use it", {})
    assert ended.value.code == 0


def test_help_prints_the_usage(capsys):
    with pytest.raises(SystemExit) as exit_info:
        command_line.parse(["simclr", "--help"], "how to use it", {})
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
    experiment = methods.of_sections(command_line.read(f"configs/{words}"))
    with_its_method = (ROOT / "configs" / words.partition(":")[0]).read_text()
    assert f"python -m experiments.{experiment.name} --config" in with_its_method
    sections = experiment.all_sections()
    command = command_line.parse(["simclr", f"--config=configs/{words}"], "", sections)
    assert set(command.config) == set(sections)


def test_a_section_or_key_that_nothing_reads_is_named():
    def loss(kind: str = "nt_xent", temperature: float = 0.5): ...

    sections = {"loss": takes(loss)}
    with pytest.raises(ConfigError, match="'tempreature' is no key of 'loss'; did you mean"):
        complete(ConfigDict({"loss": {"tempreature": 1.0}}), sections)
    with pytest.raises(ConfigError, match="'lss' is no section; did you mean 'loss'"):
        complete(ConfigDict({"lss": {}, "loss": {}}), sections)


def parsed(*arguments, config=CONFIG, method="simclr"):
    sections = METHODS[method].all_sections()
    return command_line.parse(["simclr", config, *arguments], "", sections).config


def test_every_key_of_a_section_can_be_set_whether_the_file_writes_it_or_not():
    config = parsed("--config.optimizer.annealing=linear", "--config.eval.probe_train=100")
    assert config.optimizer.annealing == "linear"
    assert config.eval.probe_train == 100
    assert parsed("--config.optimizer.nesterov").optimizer.nesterov is True
    assert parsed("--config.train.epochs", "2.5").train.epochs == 2.5


def test_a_value_of_a_tuple_can_be_set():
    assert parsed("--config.augment.crop_scale[0]=0.3").augment.crop_scale == (0.3, 1.0)
    config = command_line.override(parsed(), {"eval.l2_grid": "(1.0, 2.0)"}, SECTIONS)
    assert config.eval.l2_grid == (1.0, 2.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.learning_rate", "0.01"),
        ("data.batch_size", 8.0),
        ("train.seed", 1.5),
        ("train.steps", "2"),
        ("eval.l2_grid", 1.0),
        ("eval.draws", 2.5),
        ("eval.figures", "no"),
        ("head.output_dim", 4.5),
        ("data.data_dir", 3),
        ("augment.crop_scale", 0.5),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(key, value):
    config = parsed()
    section, _, name = key.partition(".")
    with config.unlocked(), config.ignore_type():
        config[section][name] = value
    with pytest.raises(ConfigError, match=re.escape(f"{key} is {value!r}; give")):
        complete(config, SECTIONS)


def test_none_gives_a_key_its_default_back():
    assert parsed("--config.optimizer.name=None").optimizer.name == "sgd"
    assert parsed("--config.checkpoint.best_metric=None").checkpoint.best_metric is None
    with pytest.raises(ConfigError, match="augment.size has no default"):
        parsed("--config.augment.size=None")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--config.optimizer.annealing=3.5.1", None),
        ("--config.optimizer.anealing=linear", "did you mean 'annealing'"),
        ("--config.augment.crop_scale[0]=", "crop_scale"),
        ("--config.augment.crop_scale[7]=0.5", "crop_scale has 2 values"),
        ("--config.train=3", "'train' is a section"),
        ("--config.loss.margin=0.5", "'margin' is no key of 'loss'"),
        ("--config.loss.kind=nt_margin=1", "Give one of"),
        ("--config.data.batch_size=1.5", "batch_size"),
    ],
)
def test_a_bad_override_is_a_config_error(argument, says):
    if says is None:  # any text is a string: the function that reads it refuses it
        assert parsed(argument).optimizer.annealing == "3.5.1"
        return
    with pytest.raises(ConfigError, match=re.escape(says)):
        parsed(argument)


def test_another_loss_takes_its_own_options_and_not_those_of_the_file():
    config = parsed("--config.loss.kind=nt_margin", "--config.loss.margin=0.3")
    assert config.loss.margin == 0.3
    assert "temperature" not in config.loss  # the file's, which nt_margin does not take
    with pytest.raises(ConfigError, match="'temperature' is no key of 'loss'"):
        parsed("--config.loss.kind=nt_margin", "--config.loss.temperature=0.3")


def test_a_config_that_cannot_run_is_an_error_of_its_file(tmp_path):
    for text in ("import nowhere", "def get_config(preset=''):\n    return 3", "1 +", "x = 1"):
        (tmp_path / "page.py").write_text(text + "\n")
        with pytest.raises(ConfigError, match="page.py"):
            parsed(config=f"--config={tmp_path}/page.py")


def test_the_command_line_is_argv_whatever_else_python_was_given(monkeypatch):
    monkeypatch.setattr("sys.argv", ["notebook", "--config.loss.temperature=9.0", "--junk"])
    assert parsed("--config.loss.temperature=0.25").loss.temperature == 0.25


def test_a_platform_that_is_not_there_is_named(run, monkeypatch, tmp_path):
    def no_cuda(*args, **keywords):
        raise RuntimeError("Unable to initialize backend 'cuda'\nmore")

    monkeypatch.setattr("contrastive_jax.parallel.make_mesh", no_cuda)
    code, err = run(CONFIG, f"--workdir={tmp_path}")
    assert code == 2
    assert "Unable to initialize backend 'cuda'" in err
    assert len(err.strip().splitlines()) <= 3


def test_an_error_of_the_code_is_no_config_error(monkeypatch, tmp_path):
    """Only what reading a config raises is a bad value of it; else there is a traceback."""

    def broken(*args, **keywords):
        raise ValueError("a codec that failed")

    monkeypatch.setattr(lifecycle.training, "run", broken)
    with pytest.raises(ValueError, match="codec"), command_line.exit_codes():
        lifecycle.main(EXPERIMENT, ["simclr", CONFIG, f"--workdir={tmp_path}"])


def test_two_data_sets_have_two_folders():
    arrays = "--config.data.source=arrays"
    names = set()
    for file in ("a.npz", "b.npz"):
        argv = [
            "simclr",
            "--config=configs/cifar.py:smoke",
            arrays,
            f"--config.data.data_dir={file}",
        ]
        names.add(command_line.parse(argv, "", SECTIONS).name)
    assert len(names) == 2


def test_commands_run_in_a_thread(tmp_path):
    """A notebook's cell may not be the main thread, where alone signals can be taken over."""
    seen = []

    def work():
        try:
            lifecycle.main(EXPERIMENT, ["simclr", CONFIG, "--config.loss.temperature=-1.0"])
        except ConfigError as error:
            seen.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "temperature is -1.0" in seen[0]


def test_config_headers_say_how_to_run_them():
    for path in (ROOT / "configs").glob("[a-z]*.py"):
        assert f"--config configs/{path.name}" in path.read_text().split('"""')[1], path


@pytest.mark.parametrize("word", ["loss.temperature=-1.", "checkpoint.every_steps=0"])
def test_nothing_is_left_behind_by_a_refused_run(word, run, tmp_path):
    run(CONFIG, f"--config.{word}", f"--workdir={tmp_path / 'run'}")
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.name != ".lock"]
    assert left == []

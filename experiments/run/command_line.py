"""From a command line to a checked config, or to an error of three lines and an exit code."""

import argparse
import json
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn

from ml_collections import ConfigDict

from contrastive_jax.errors import ConfigError, RunError
from experiments.run import multihost, signals
from experiments.run.sections import Sections, check_names, from_text, set_values

_TRACEBACK = "CONTRASTIVE_JAX_TRACEBACK"  # set it to see where a refused value was found


class Command(NamedTuple):
    """A parsed command line."""

    config: ConfigDict | None  # complete: every key of every section
    path: str  # of the config file, with its preset; empty for the folder of a run
    name: str  # of the config file, its preset and the overridden keys
    workdir: str | None
    overrides: Mapping[str, str]  # of the config, by "section.key", as they were typed
    run: str | None  # the folder of a run, where the command takes one
    strings: Mapping[str, str | None]  # the command's flags with a value
    switches: Mapping[str, bool]


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what a person can mend into a short message and a stable exit code."""
    signals.raise_again(KeyboardInterrupt)
    try:
        yield
        return
    except SystemExit:  # the end of a command, or of --help
        _flush()
        raise
    except KeyboardInterrupt as error:
        message, code = "interrupted.", multihost.exit_code(error)
    except (RunError, OSError) as error:
        if os.environ.get(_TRACEBACK):
            raise
        message, code = _short(error), multihost.exit_code(error)
        if isinstance(error, OSError):  # a full disk, a file that went away
            message += "\nMend that and run the same command again."
    _flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    multihost.leave(code)  # the other processes must not wait for this one


def _flush() -> None:
    """Write out what was printed, if somebody reads it: `head` leaves after its last line."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def bad_values() -> Iterator[None]:
    """Take the ValueErrors of a block, in which a config is read, for bad values of it."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(_short(error)) from error


def _short(error: Exception) -> str:
    return "\n".join(str(error).strip().splitlines()[:3])


def parse(
    argv: Sequence[str],
    usage: str,
    sections: Sections | Callable[[str], Sections],
    strings: Mapping[str, str] | None = None,
    switches: Mapping[str, str] | None = None,
    takes_run: bool = False,
) -> Command:
    """Read --config FILE[:preset], --workdir DIR, --config.section.key=value and further flags.

    Args:
      argv: the command line.
      usage: what --help prints.
      sections: of the config, or a function of its path; what the config leaves out is added.
      strings: flags with a value, and what they mean.
      switches: flags without a value.
      takes_run: the folder of a run may stand in place of --config; overrides are then left as
        they were typed.

    Raises:
      ConfigError: for anything that is not understood, naming it.
    """
    if {"--help", "-help", "-h"} & set(argv[1:]):
        with suppress(BrokenPipeError):
            print(usage)
        sys.exit(0)
    overrides, words = split_overrides(argv[1:], "config")
    for name in strings or ():  # overrides of another config, which are read on their own
        words = split_overrides(words, name)[1]
    flags, others = _flags(words, strings or (), switches or ())
    path, workdir = flags.pop("config"), flags.pop("workdir")
    values = {name: flags.pop(name) for name in strings or ()}
    if path is None and takes_run:
        folder = _run_folder(argv, others, workdir)
        name = os.path.basename(os.path.normpath(folder))
        return Command(None, "", name, None, overrides, folder, values, flags)
    if path is None:
        raise ConfigError("No config was given; try --config configs/digits.py")
    if others:
        raise ConfigError(
            f"The word {others[0]!r} belongs to no flag; keys are set as --config.a.b=1."
        )
    config = read(path)
    config = override(config, overrides, sections(path) if callable(sections) else sections)
    name = run_name(path, overrides, config)
    return Command(config, path, name, workdir, overrides, None, values, flags)


def _run_folder(argv: Sequence[str], folders: Sequence[str], workdir: str | None) -> str:
    for word in argv:
        if re.fullmatch(r"--?config\.[^=]*", word):  # its value may be the folder
            raise ConfigError(f"Write {word}=VALUE, in one word.")
    if workdir is not None:
        raise ConfigError("Give the folder of a run, or --config and --workdir; not both.")
    if len(folders) != 1:
        given = f"{len(folders)} folders: {', '.join(folders)}" if folders else "no folder"
        raise ConfigError(f"Give the folder of one run, such as runs/digits; there is {given}.")
    return folders[0]


def described(command: str, usage: str | None) -> argparse.ArgumentParser:
    """Make the parser of a command that takes no config; its --help is the module's docstring."""
    style = argparse.RawDescriptionHelpFormatter
    name = f"python -m experiments.{command}"
    return argparse.ArgumentParser(prog=name, description=usage, formatter_class=style)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"The command line was not understood: {message}.")


def _flags(
    words: Sequence[str], strings: Sequence[str], switches: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Read the flags, by name, and the words that belong to none."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in ("config", "workdir", *strings):
        parser.add_argument(f"--{name}")
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true")
    values, others = parser.parse_known_args(words)
    unknown = [word.lstrip("-").partition("=")[0] for word in others if word.startswith("-")]
    check_names("flag", unknown, vars(values))
    return vars(values), others


def read(path: str) -> ConfigDict:
    """Load a config file, which is Python, for its preset.

    Raises:
      ConfigError: no such file or preset, or a file that cannot be run.
    """
    file, _, preset = path.partition(":")
    config = call(run_file(file), "get_config", path, *([preset] if preset else []))
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise ConfigError(f"{path}: get_config() must return a ConfigDict, not {kind}.")
    return config


def run_file(path: str) -> dict[str, Any]:
    """Run a config file; returns what it defines.

    Raises:
      ConfigError: no such file, or whatever it raises.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"There is no config file {path!r}; see the folder configs/.")
    return call({"run": runpy.run_path}, "run", path, path)


def call(module: Mapping[str, Any], name: str, path: str, *arguments: Any) -> Any:
    """Call a function of a config file.

    Raises:
      ConfigError: it is not there, or whatever it raises.
    """
    if not callable(module.get(name)):
        raise ConfigError(f"{path} has no function {name}().")
    try:
        return module[name](*arguments)
    except Exception as error:  # whatever a file raises while it runs
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error


def override(config: ConfigDict, texts: Mapping[str, str], sections: Sections) -> ConfigDict:
    """Set keys of a config from text, as the command line does, and complete it.

    Raises:
      ConfigError: a key that does not exist, or a value of another type.
    """
    return set_values(config, sections, texts, from_text)


def override_texts(argv: Sequence[str], name: str = "config") -> dict[str, str]:
    """Collect the overrides of a config as they were typed.

    >>> override_texts(["x", "--config.a.b=1", "--config.a.c", "2", "--noconfig.a.d"])
    {'a.b': '1', 'a.c': '2', 'a.d': 'False'}
    """
    return split_overrides(argv, name)[0]


def split_overrides(argv: Sequence[str], name: str) -> tuple[dict[str, str], list[str]]:
    """Separate the overrides of a config from the other words."""
    found, others, words = {}, [], list(argv)
    while words:
        word = words.pop(0)
        match = re.fullmatch(rf"--?(no)?{name}\.([^=]*)(?:=(.*))?", word, re.DOTALL)
        if not match:
            others.append(word)
        elif match[1] or match[3] is not None:
            found[match[2]] = "False" if match[1] else match[3]
        else:
            alone = not words or words[0].startswith("--")
            found[match[2]] = "True" if alone else words.pop(0)
    return found, others


def run_name(path: str, overrides: Mapping[str, str], config: ConfigDict | None = None) -> str:
    """Name the folder of a run: config, preset, and what was overridden; a data file by its name.

    >>> run_name("configs/cifar.py:cpu", {"loss.temperature": "0.2", "data.data_dir": "/data"})
    'cifar-cpu-loss.temperature=0.2'
    """
    file, _, preset = path.partition(":")
    parts = [os.path.splitext(os.path.basename(file))[0], preset]
    parts += [f"{k}={v}" for k, v in sorted(overrides.items()) if k != "data.data_dir"]
    if config is not None and config.get("data", {}).get("source") in (
        "arrays",
        "folder",
        "webdataset",
    ):
        data_dir = str(config.data.get("data_dir") or "")
        parts.append(os.path.splitext(os.path.basename(os.path.normpath(data_dir)))[0])
    return re.sub(r"[^\w.=,+-]+", "_", "-".join(part for part in parts if part))[:150]


def plain(config: ConfigDict) -> dict[str, Any]:
    """Resolve a config into what JSON can hold.

    >>> plain(ConfigDict({"loss": {"temperature": 0.5}}))
    {'loss': {'temperature': 0.5}}
    """
    return json.loads(config.to_json())

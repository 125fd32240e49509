"""From a command line to a checked config, or to an error of three lines and an exit code."""

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from contrastive_jax.errors import CheckpointError, ConfigError, RunError
from experiments.run.sections import (
    Sections,
    check_names,
    choose,
    complete,
    take_number_or_word,
    unset,
)
from experiments.run.signals import ABANDONED

_TRACEBACK = "CONTRASTIVE_JAX_TRACEBACK"  # set it to see where a refused value was found


class Command(NamedTuple):
    """A parsed command line."""

    config: ConfigDict | None  # complete: every key of every section
    name: str  # of the config file, its preset and the overridden keys
    workdir: str | None
    overrides: Mapping[str, Any]  # of the config, by "section.key"
    run: str | None  # the folder of a run, where the command takes one
    strings: Mapping[str, str | None]  # the command's flags with a value
    switches: Mapping[str, bool]


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what a person can mend into a short message and a stable exit code."""
    try:
        yield
        return
    except KeyboardInterrupt:
        message, code = "interrupted.", ABANDONED
    except RunError as error:
        message, code = _short(error), error.exit_code
        if os.environ.get(_TRACEBACK):
            raise
    except OSError as error:  # a full disk, a file that went away
        message = f"{error}\nMend that and run the same command again."
        code = CheckpointError.exit_code
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    from experiments.run import multihost  # the other processes must not wait for this one

    multihost.leave(code)


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
    sections: Sections,
    strings: Mapping[str, str] | None = None,
    switches: Mapping[str, str] | None = None,
    takes_run: bool = False,
) -> Command:
    """Read --config FILE[:preset], --workdir DIR, --config.section.key=value and further flags.

    Args:
      argv: the command line.
      usage: what --help prints.
      sections: of the config; what it leaves out is added.
      strings: flags with a value, and what they mean.
      switches: flags without a value.
      takes_run: the folder of a run may stand in place of --config; overrides are then left as
        they were typed.

    Raises:
      ConfigError: for anything that is not understood, naming it.
    """
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(usage)
        sys.exit(0)
    path = flag_text(argv, "config")
    if path is None:
        if takes_run:
            return _parse_run(argv, strings or {}, switches or {})
        raise ConfigError("No config was given; try --config configs/digits.py")
    values = _flags(strings or {}, switches or {})
    config = read(path)
    rest = _without_overrides(_without_flag(argv, "config"), tuple(strings or {}))
    config, rest = _prepare(config, rest, sections)
    config, stray = _parse_overrides(values, config, rest)
    if stray:
        raise ConfigError(
            f"The word {stray[0]!r} belongs to no flag; keys are set as --config.a.b=1."
        )
    overrides = override_texts(argv)
    return Command(
        complete(config, sections),
        run_name(path, overrides, config),
        values.workdir,
        overrides,
        None,
        {name: values[name].value for name in (strings or {})},
        {name: values[name].value for name in (switches or {})},
    )


def _parse_run(
    argv: Sequence[str], strings: Mapping[str, str], switches: Mapping[str, str]
) -> Command:
    """A command on the folder of a run: what it changes of the config stays text."""
    values = _flags(strings, switches)
    for word in argv:
        if re.fullmatch(r"--?config\.[^=]*", word):
            raise ConfigError(f"Write {word}=VALUE, in one word.")
    stray = _parse(values, _without_overrides(argv, ("config", *strings)))
    if values.workdir is not None:
        raise ConfigError("Give the folder of a run, or --config and --workdir; not both.")
    if len(stray) != 1:
        given = f"{len(stray)} folders: {', '.join(stray)}" if stray else "no folder"
        raise ConfigError(f"Give the folder of one run, such as runs/digits; there is {given}.")
    return Command(
        None,
        os.path.basename(os.path.normpath(stray[0])),
        values.workdir,
        override_texts(argv),
        stray[0],
        {name: values[name].value for name in strings},
        {name: values[name].value for name in switches},
    )


def _flags(strings: Mapping[str, str], switches: Mapping[str, str]) -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    for name, text in strings.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text in switches.items():
        flags.DEFINE_boolean(name, False, text, flag_values=values)
    return values


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Fill in the flags; returns the words that belong to none."""
    with _usage_errors():
        return values(list(argv))[1:]


def _parse_overrides(
    values: flags.FlagValues, config: ConfigDict, argv: Sequence[str]
) -> tuple[ConfigDict, list[str]]:
    """Fill in the flags and the overrides of a config."""
    with _usage_errors():
        config_flags.DEFINE_config_dict("config", config, "", values, sys_argv=list(argv))
        stray = values(list(argv))[1:]
        return values.config, stray


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # absl and ml_collections raise many types
        raise ConfigError(_reason(error)) from error


def read(path: str) -> ConfigDict:
    """Load a config file, which is Python, for its preset.

    Raises:
      ConfigError: no such file or preset, or a file that cannot be run.
    """
    file = path.split(":")[0]
    if not os.path.isfile(file):
        raise ConfigError(f"There is no config file {file!r}; see the folder configs/.")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", values, sys_argv=[])
    try:
        values(["read", f"--config={path}"])
    except Exception as error:  # whatever a file raises while it runs
        raise ConfigError(f"{path}: {_reason(error)}") from error
    if not isinstance(values.config, ConfigDict):
        kind = type(values.config).__name__
        raise ConfigError(f"{path}: get_config() must return a ConfigDict, not {kind}.")
    return values.config


def override(config: ConfigDict, texts: Mapping[str, str], sections: Sections) -> ConfigDict:
    """Set keys of a config from text, as the command line does.

    Raises:
      ConfigError: a key that does not exist, or a value of another type.
    """
    words = ["override", *(f"--config.{key}={text}" for key, text in texts.items())]
    config, words = _prepare(config, words, sections)
    config, _ = _parse_overrides(flags.FlagValues(), config, words)
    return complete(config, sections)


def _prepare(
    config: ConfigDict, argv: Sequence[str], sections: Sections
) -> tuple[ConfigDict, list[str]]:
    """Complete a config and check the names of its overrides; None is applied here."""
    config = config.copy_and_resolve_references()
    texts = override_texts(argv)
    for key, text in texts.items():
        if text != "None":
            choose(config, sections, key, text)
    config = complete(config, sections)
    take_number_or_word(config, sections, texts)
    kept = []
    for word in argv:
        match = re.match(r"--?(no)?config\.([^=]*)(?:=(.*))?$", word, re.DOTALL)
        if match:
            section, _, key = match[2].partition(".")
            check_names("section", {section}, set(config))
            if not key:
                raise ConfigError(f"{section!r} is a section; set --config.{section}.KEY=VALUE.")
            _check_key(config[section], section, key)
        if match and "[" in match[2]:
            _set_place(config[section], key, match[3] or "")
        elif match and match[3] == "None":
            unset(config, sections, match[2])
        else:
            kept.append(word)
    return config, kept


def _check_key(values: ConfigDict, section: str, key: str) -> None:
    """Refuse a key that its section lacks, and a place of a tuple that it lacks: key[2]."""
    name, bracket, place = key.partition("[")
    check_names(f"key of {section!r}", {name}, set(values))
    if bracket:
        n = len(values[name]) if isinstance(values[name], tuple | list) else 0
        if place.rstrip("]") not in map(str, range(n)):
            raise ConfigError(f"--config.{section}.{key}: {name} has {n} values, [0] first.")


def _set_place(values: ConfigDict, key: str, text: str) -> None:
    """Set one value of a tuple, key[i]=text."""
    name, _, place = key.partition("[")
    items = list(values[name])
    old = items[int(place.rstrip("]"))]
    try:
        items[int(place.rstrip("]"))] = type(old)(text)
    except ValueError:
        raise ConfigError(f"{key} is {text!r}; give {type(old).__name__}.") from None
    values[name] = tuple(items)


def _reason(error: Exception) -> str:
    """The part of a flag parser's error that a person can use, which may be its last line."""
    if isinstance(error, RunError):
        return _short(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or isinstance(error, KeyError):
        return f"The command line was not understood ({type(error).__name__}: {error})."
    return lines[-1 if "Traceback" in str(error) else 0][:300]


def flag_text(argv: Sequence[str], name: str) -> str | None:
    """Find the value of a flag as it was typed, None where it was not.

    >>> flag_text(["simclr", "--config", "a.py"], "config")
    'a.py'
    """
    for i, word in enumerate(argv):
        match = re.fullmatch(rf"--?{name}(?:=(.*))?", word, re.DOTALL)
        if match and match.group(1) is not None:
            return match.group(1)
        if match and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _without_flag(argv: Sequence[str], name: str) -> list[str]:
    kept, words = [], iter(argv)
    for word in words:
        if re.fullmatch(rf"--?{name}", word):
            next(words, None)
        elif not re.match(rf"--?{name}=", word):
            kept.append(word)
    return kept


def _without_overrides(argv: Sequence[str], names: Sequence[str]) -> list[str]:
    """Drop the overrides of configs, --NAME.key=value, that are read on their own."""
    named = "|".join(map(re.escape, names)) or "$^"
    return [word for word in argv if not re.match(rf"--?(no)?({named})\.", word)]


def override_texts(argv: Sequence[str], name: str = "config") -> dict[str, str]:
    """Collect the overrides of a config as they were typed.

    >>> override_texts(["x", "--config.a.b=1", "--config.a.c", "2", "--noconfig.a.d"])
    {'a.b': '1', 'a.c': '2', 'a.d': 'False'}
    """
    found = {}
    for i, word in enumerate(argv):
        match = re.match(rf"--?(no)?{name}\.([^=]*)(?:=(.*))?$", word, re.DOTALL)
        if match and match[1]:
            found[match[2]] = "False"
        elif match and match[3] is not None:
            found[match[2]] = match[3]
        elif match:
            following = argv[i + 1] if i + 1 < len(argv) else "--"
            found[match[2]] = "True" if following.startswith("--") else following
    return found


def run_name(path: str, overrides: Mapping[str, str], config: ConfigDict | None = None) -> str:
    """Name the folder of a run: config, preset, and what was overridden; a data file by its name.

    >>> run_name("configs/cifar.py:cpu", {"loss.temperature": "0.2", "data.data_dir": "/data"})
    'cifar-cpu-loss.temperature=0.2'
    """
    file, _, preset = path.partition(":")
    parts = [os.path.splitext(os.path.basename(file))[0], preset]
    parts += [f"{k}={v}" for k, v in sorted(overrides.items()) if k != "data.data_dir"]
    if config is not None and config.get("data", {}).get("source") == "arrays":
        data_dir = str(config.data.get("data_dir") or "")
        parts.append(os.path.splitext(os.path.basename(os.path.normpath(data_dir)))[0])
    return re.sub(r"[^\w.=,+-]+", "_", "-".join(part for part in parts if part))[:150]


def plain(config: ConfigDict) -> dict[str, Any]:
    """Resolve a config into what JSON can hold.

    >>> plain(ConfigDict({"loss": {"temperature": 0.5}}))
    {'loss': {'temperature': 0.5}}
    """
    return json.loads(config.to_json())


def nearest(name: str, known: Sequence[str]) -> str:
    """Say which of the known names is nearest, or all of them.

    >>> nearest("knm", ["knn", "linear"])
    "did you mean 'knn'?"
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"give one of: {', '.join(known)}."

"""From a command line to a checked config, or to an error of three lines and an exit code."""

import difflib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from contrastive_jax.errors import CheckpointError, ConfigError, RunError

Sections = Mapping[str, Collection[str]]  # section -> the keywords of the function that reads it


class Command(NamedTuple):
    """A parsed command line."""

    config: ConfigDict
    name: str  # of the config file, its preset and the overridden keys
    workdir: str | None
    overrides: Mapping[str, Any]
    strings: Mapping[str, str | None]  # the experiment's own flags
    pages: Mapping[str, ConfigDict | None]  # further configs that it takes, None where not given
    switches: Mapping[str, bool]


def exit_with(
    main: Callable[[Sequence[str]], int], leave: Callable[[int], NoReturn] = sys.exit
) -> None:
    """Run `main` on the command line; turn what a person can mend into a short message."""
    try:
        code = main(sys.argv)
    except RunError as error:
        print(f"error: {_short(error)}", file=sys.stderr)
        code = error.exit_code
    except ValueError as error:  # what the library says of a value it was given
        if os.environ.get("CONTRASTIVE_JAX_TRACEBACK"):
            raise
        print(f"error: {_short(error)}", file=sys.stderr)
        code = ConfigError.exit_code
    except OSError as error:  # a full disk, a file that went away
        print(f"error: {error}\nMend that and run the same command again.", file=sys.stderr)
        code = CheckpointError.exit_code
    sys.stdout.flush()
    leave(code)


def _short(error: Exception) -> str:
    return "\n".join(str(error).strip().splitlines()[:3])


def parse(
    argv: Sequence[str],
    usage: str,
    strings: Mapping[str, str] | None = None,
    pages: Sequence[str] = (),
    switches: Mapping[str, str] | None = None,
) -> Command:
    """Read --config FILE[:preset], --workdir DIR, --config.section.key=value and further flags.

    Args:
      argv: the command line.
      usage: what --help prints.
      strings: flags with a value, and what they mean.
      pages: flags like --config, each with overrides of its own.
      switches: flags without a value.

    Raises:
      ConfigError: for anything that is not understood, naming it.
    """
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(usage)
        sys.exit(0)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, lock_config=True)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    for name, text in (strings or {}).items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text in (switches or {}).items():
        flags.DEFINE_boolean(name, False, text, flag_values=values)
    for name in pages:
        config_flags.DEFINE_config_file(name, None, "", flag_values=values, lock_config=True)
    stray = _parse(values, argv, ("config", *pages))
    if stray:
        raise ConfigError(
            f"The word {stray[0]!r} belongs to no flag; keys are set as --config.a.b=1."
        )
    path = flag_text(argv, "config")
    overrides = dict(config_flags.get_override_values(values["config"]))
    return Command(
        values.config,
        run_name(path, overrides),
        values.workdir,
        overrides,
        {name: values[name].value for name in (strings or {})},
        {name: values[name].value for name in pages},
        {name: values[name].value for name in (switches or {})},
    )


def _parse(values: flags.FlagValues, argv: Sequence[str], pages: Sequence[str]) -> list[str]:
    """Fill in the flags; the words that belong to none."""
    paths = {name: flag_text(argv, name) for name in pages}
    if paths["config"] is None:
        raise ConfigError("No config was given; try --config configs/digits.py")
    given = {name: path for name, path in paths.items() if path is not None}
    for file in (path.split(":")[0] for path in given.values()):
        if not os.path.isfile(file):
            raise ConfigError(f"There is no config file {file!r}; see the folder configs/.")
    try:
        stray = values(list(argv))[1:]
        for name, path in given.items():
            kind = type(values[name].value)
            if not isinstance(values[name].value, ConfigDict):
                raise ConfigError(f"{path}: get_config() must return a ConfigDict, not {kind}.")
        return stray
    except RunError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, SyntaxError) as error:
        raise ConfigError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """The part of a flag parser's error that a person can use, which may be its last line."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    near = re.search(r'Did you mean "(.*?)" instead of "(.*?)"', text)
    if near:
        return f"{near[2]!r} is no key of this config; did you mean {near[1]!r}?"
    key = text.strip().strip("'")
    if isinstance(error, KeyError) or text.strip() == f"'{key}'":
        return f"{key!r} is no key of this config."
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return f"The command line was not understood ({type(error).__name__})."
    return lines[-1 if "Traceback" in text else 0][:300]


def flag_text(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag as it was typed, None where it was not."""
    for i, word in enumerate(argv):
        match = re.fullmatch(rf"--?{name}(?:=(.*))?", word, re.DOTALL)
        if match and match.group(1) is not None:
            return match.group(1)
        if match and i + 1 < len(argv):
            return argv[i + 1]
    return None


def run_name(path: str | None, overrides: Mapping[str, Any]) -> str:
    """A folder name for a run: config, preset, and what was overridden but for paths and names.

    >>> run_name("configs/cifar.py:cpu", {"loss.temperature": 0.2, "data.data_dir": "/data"})
    'cifar-cpu-loss.temperature=0.2'
    """
    file, _, preset = (path or "").partition(":")
    parts = [os.path.splitext(os.path.basename(file))[0], preset]
    parts += [f"{k}={v}" for k, v in sorted(overrides.items()) if k != "data.data_dir"]
    return re.sub(r"[^\w.=,+-]+", "_", "-".join(part for part in parts if part))[:150]


def keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of what a function takes.

    >>> keywords(run_name)
    ('path', 'overrides')
    """
    return tuple(inspect.signature(function).parameters)


def check(config: ConfigDict, sections: Sections) -> None:
    """Refuse a config whose sections or keys are not those of the functions that read them.

    Raises:
      ConfigError: names the section or key, and the nearest one that exists.
    """
    _check_names("section", set(config), set(sections))
    missing = sorted(set(sections) - set(config))
    if missing:
        raise ConfigError(f"The config has no section {missing[0]!r}; it needs {sorted(sections)}.")
    for section in config:
        _check_names(f"key of {section!r}", set(config[section]), set(sections[section]))
    for key, value in leaves(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--config.{key} is {value}; give a finite number.")


def _check_names(kind: str, given: set[str], known: set[str]) -> None:
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}."
        raise ConfigError(f"{name!r} is no {kind}; {hint}")


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a nested config as ("section.key", value).

    >>> list(leaves({"loss": {"temperature": 0.5}}))
    [('loss.temperature', 0.5)]
    """
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", value
            yield from ((f"{prefix}{key}[{i}]", item) for i, item in enumerate(value))
        else:
            yield f"{prefix}{key}", value


def as_kwargs(config: ConfigDict, section: str) -> dict[str, Any]:
    """One section as plain keyword arguments.

    A ValueError of the function that takes them is a bad value of that section.
    """
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config[section].items()}

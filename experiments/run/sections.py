"""The sections of a config: which keys the functions that read them take, and their defaults."""

import ast
import difflib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from contrastive_jax.errors import ConfigError

REQUIRED = inspect.Parameter.empty
PLACES = (
    "data_dir",
    "path",
    "test_path",
    "tokenizer",
    "negatives_path",
)  # keys of `data` that say where it lies, not what it is
_SCALARS = (bool, int, float, str)


class Key(NamedTuple):
    """A key of a section: its default, `REQUIRED` for none, and the type of its values."""

    default: Any
    type: Any


Keys = Mapping[str, Key]


class Choice(NamedTuple):
    """A section in which the value of one key decides which others there are."""

    key: str
    default: str
    common: Keys
    options: Mapping[str, Keys]
    further: Callable[[str], Keys | None] = lambda value: None  # of values beside the options


Sections = Mapping[str, Keys | Choice]


def takes(*functions: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Key]:
    """Read the keys of a section from the signatures of the functions that take it.

    >>> def make(depth: int = 18, *, stem: str, mesh): ...
    >>> takes(make, without=("mesh",))["depth"]
    Key(default=18, type=<class 'int'>)
    """
    keys = {}
    for function in functions:
        hints = typing.get_type_hints(function)
        if inspect.isclass(function):
            hints |= typing.get_type_hints(function.__init__)
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in without and parameter.kind is not parameter.VAR_KEYWORD:
                keys[name] = Key(parameter.default, hints.get(name, Any))
    return keys


def keys_of(section: Keys | Choice, values: Mapping[str, Any], name: str = "") -> Keys:
    """List the keys that a section with these values may have.

    Raises:
      ConfigError: the value that decides is none of the options.
    """
    if not isinstance(section, Choice):
        return section
    chosen = values.get(section.key, section.default)
    own = {section.key: Key(section.default, str), **section.common}
    if (further := section.further(chosen)) is not None:
        return {**own, **further}
    if chosen not in section.options:
        known = nearest(str(chosen), section.options)
        raise ConfigError(f"{name}.{section.key} is {chosen!r}; {known}")
    return {**own, **section.options[chosen]}


def complete(config: ConfigDict, sections: Sections) -> ConfigDict:
    """Check a config and add every key that it leaves out, with its default.

    Raises:
      ConfigError: a section or key that nothing reads, naming the nearest that exists; a key
        without a default that is missing; a value of another type; a number that is not finite.
    """
    check_names("section", config, sections)
    whole = ConfigDict()
    for name, section in sections.items():
        values = config.get(name, ConfigDict())
        keys = keys_of(section, values, name)
        check_names(f"key of {name!r}", values, keys)
        whole[name] = ConfigDict()
        for key, (default, kind) in keys.items():
            value = default if values.get(key) is None else values[key]
            whole[name][key] = _typed(f"{name}.{key}", value, kind)
    return whole


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Check a value against the type that its function takes, and give it that type.

    None remembers the type of what may take its place, an int becomes a float where one is
    expected, and a list becomes a tuple.
    """
    if value is REQUIRED:
        raise ConfigError(f"The config has no {name}, and {name} has no default.")
    options = _options(kind)
    scalars = [option for option in options if option in _SCALARS]
    if value is None:
        return config_dict.placeholder(scalars[0] if scalars else tuple)
    if type(value) is int and float in scalars and int not in scalars:
        value = float(value)
    if isinstance(value, list | tuple):
        value = tuple(value)
        fits = any(typing.get_origin(o) is tuple or o in (tuple, Any) for o in options)
    else:
        untyped = not scalars and not any(typing.get_origin(o) is tuple for o in options)
        fits = type(value) in scalars or untyped or any(o is Any for o in options)
    if not fits:
        raise _wrong(name, value, options)
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"--config.{name} is {value}; give a finite number.")
    return value


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _wrong(name: str, value: Any, options: Iterable[Any]) -> ConfigError:
    plain = [o for o in options if o in _SCALARS or typing.get_origin(o) is tuple or o is tuple]
    expected = " or ".join(o.__name__ if o in _SCALARS else str(o) for o in plain)
    return ConfigError(f"{name} is {value!r}; give {expected or 'another type'}.")


def from_text(name: str, text: str, kind: Any) -> Any:
    """Read a value of the command line as the type that its function takes.

    >>> from_text("a.b", "0.5", int | float), from_text("a.b", "(1, 2)", tuple[int, ...])
    (0.5, (1, 2))

    Raises:
      ConfigError: it is none.
    """
    options = _options(kind)
    for option in options if text != "None" else ():
        try:
            if option is str:
                return text
            if option is bool:
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            if option in (int, float):
                return option(text)
            if option is Any:
                return ast.literal_eval(text)
            if typing.get_origin(option) is tuple:
                value = ast.literal_eval(text)
                if isinstance(value, tuple | list) or str not in options:
                    return value if isinstance(value, tuple | list) else (value,)
        except (ValueError, KeyError, SyntaxError):
            continue
    if text != "None":
        raise _wrong(f"--config.{name}", text, options)
    return None


def set_values(
    config: ConfigDict,
    sections: Sections,
    values: Mapping[str, Any],
    read: Callable[[str, Any, Any], Any] = lambda name, value, kind: value,
) -> ConfigDict:
    """Copy a config with some keys set, {"section.key": value}; None gives a default back.

    Args:
      config: a config; what it leaves out is added.
      sections: of it.
      values: by "section.key", or "section.key[place]" for one value of a tuple.
      read: (key, value, type) -> the value to set.

    Raises:
      ConfigError: a key that does not exist, or a value of another type.
    """
    config = config.copy_and_resolve_references()
    for key, value in values.items():
        _choose(config, sections, key, value)
    whole = complete(config, sections)
    with whole.unlocked(), whole.ignore_type():  # `complete` checks the types
        for key, value in values.items():
            name, last, place = _parts(key, sections)
            keys = keys_of(sections[name], whole[name], name)
            check_names(f"key of {name!r}", [last], keys)
            if place:
                whole[name][last] = _with_item(key, whole[name][last], place, value, read)
            else:
                whole[name][last] = read(key, value, keys[last].type)
    return complete(whole, sections)


def _parts(key: str, sections: Sections) -> tuple[str, str, str]:
    """Split "section.key[place]"; the place may be empty."""
    name, _, last = key.partition(".")
    check_names("section", [name], sections)
    if not last:
        raise ConfigError(f"{name!r} is a section; set --config.{name}.KEY=VALUE.")
    last, _, place = last.removesuffix("]").partition("[")
    return name, last, place


def _with_item(
    key: str, values: Any, place: str, item: Any, read: Callable[[str, Any, Any], Any]
) -> tuple[Any, ...]:
    n = len(values) if isinstance(values, tuple) else 0
    if place not in map(str, range(n)):
        raise ConfigError(f"--config.{key}: {key.partition('[')[0]} has {n} values, [0] first.")
    i = int(place)
    return (*values[:i], read(key, item, type(values[i])), *values[i + 1 :])


def _choose(config: ConfigDict, sections: Sections, key: str, value: Any) -> None:
    """Set the key of a `Choice`; options that only the one before it takes are left out."""
    name, _, last = key.partition(".")
    section = sections.get(name)
    if not isinstance(section, Choice) or last != section.key or name not in config or not value:
        return
    with config.unlocked():
        config[name][last] = value
        keys = keys_of(section, config[name], name)
        others = set().union(*section.options.values()) - keys.keys()
        for old in others.intersection(config[name]):
            del config[name][old]


def check_names(kind: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a name that does not exist, naming the nearest one and all others.

    >>> check_names("key of 'loss'", {"knd"}, {"kind", "temperature"})
    Traceback (most recent call last):
    contrastive_jax.errors.ConfigError: 'knd' is no key of 'loss'; did you mean 'kind'?
    Give one of: kind, temperature.
    """
    for name in sorted(set(given) - set(known)):
        raise ConfigError(f"{name!r} is no {kind}; {nearest(name, known)}")


def nearest(name: str, known: Collection[str]) -> str:
    """Say which of the known names is nearest, and all of them.

    >>> nearest("cosine", ["knn", "linear"])
    'give one of: knn, linear.'
    """
    near = difflib.get_close_matches(name, known, n=1)
    start = f"did you mean {near[0]!r}?\nGive" if near else "give"
    return f"{start} one of: {', '.join(sorted(known))}."


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten a nested config into ("section.key", value).

    >>> list(leaves({"loss": {"temperature": 0.5}}))
    [('loss.temperature', 0.5)]
    """
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def absolute(place: str | Sequence[str]) -> Any:
    """Write a place, or each of several, as it is found from every folder of this machine."""
    if not isinstance(place, str):
        return [absolute(each) for each in place]
    return os.path.abspath(os.path.expanduser(place))


def as_kwargs(config: ConfigDict, section: str) -> dict[str, Any]:
    """Turn a section into keyword arguments."""
    return dict(config[section].items())

"""What a text source holds, as texts: one set, or a mix of several."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from contrastive_jax.data.text import collection
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.data.text.pairs import Pair
from contrastive_jax.errors import DataError

Found = TypeVar("Found")


class Corpus(NamedTuple):
    """What a source holds, as texts."""

    name: str
    train: list[Pair]
    test: Collection
    validation: Collection | None
    notes: tuple[str, ...]  # what is odd, with counts
    graded: tuple[Pair, ...] = ()  # of the test, where every pair of the file has a score
    sets: tuple[tuple[str, int], ...] = ()  # of a mix: names and training pairs, in their order

    def by_set(self) -> list[list[Pair]]:
        """The training pairs of each set of a mix; of all, where it is none."""
        ends = [*itertools.accumulate(n for _, n in self.sets)] or [len(self.train)]
        return [self.train[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def each_of(path: Sequence[str], load: Callable[[str, str], Found]) -> dict[str, Found]:
    """Load every set of a mix as what it is, a file of pairs or a folder, by a name of its own.

    Raises:
      ValueError: no set, or one that is there twice. DataError: one that is not there.
    """
    given = [place.strip() for place in path if isinstance(place, str)]
    places = [Path(place).expanduser().resolve() for place in given]
    if not places or len(set(places)) < len(path):
        raise ValueError(f"data.path is {path}; give files or folders, each of them once")
    lost = [str(place) for place in places if not place.exists()]
    if lost:
        raise DataError(f"There is no {' and no '.join(lost)}.\nMend data.path, or --data_dir.")
    found: dict[str, Found] = {}
    for number, place in enumerate(places, 1):
        kind, name = ("beir", place.name) if place.is_dir() else ("pairs", place.stem)
        found[f"{name} ({number})" if name in found else name] = load(kind, str(place))
    return found


def mixed(found: Mapping[str, Corpus]) -> Corpus:
    """Put sets one behind the other; a query that one of them holds out is trained on in none.

    Raises:
      ValueError: some have scores, others none. DataError: a set that nothing is left of.
    """
    if len({bool(each.graded) for each in found.values()}) == 2:
        raise ValueError(
            "some sets of data.path have a score in every pair, others have not; mix one kind"
        )
    test = collection.union({name: each.test for name, each in found.items()})
    searched = {name: each.validation for name, each in found.items() if each.validation}
    validation = collection.union(searched) if searched else None
    held_out = {text for part in (test, validation) if part for text in part.queries.values()}
    train: list[Pair] = []
    sets: list[tuple[str, int]] = []
    notes: list[str] = []
    for name, each in found.items():
        kept = [pair for pair in each.train if pair.query not in held_out]
        if not kept:
            raise DataError(
                f"{name} has no training pairs but of test queries.\nLeave it out of data.path."
            )
        notes += [f"{name}: {note}" for note in each.notes]
        lost, again = len(each.train) - len(kept), len(set(kept) & set(train))
        notes += [f"{name}: {lost:,} pairs are left out, of test queries"] if lost else []
        notes += [f"{name}: {again:,} pairs are of an earlier set"] if again else []
        train += kept
        sets.append((name, len(kept)))
    graded = tuple(pair for each in found.values() for pair in each.graded)
    return Corpus(test.name, train, test, validation, tuple(notes), graded, tuple(sets))


def leaks(corpus: Corpus) -> list[str]:
    """Count what training sees of the test."""
    trained_on = {pair.query for pair in corpus.train}
    shown = {text for pair in corpus.train for text in pair.positives}
    asked = sum(text in trained_on for text in corpus.test.queries.values())
    answers = [
        any(corpus.test.documents[d] in shown for d, grade in judged.items() if grade > 0)
        for judged in corpus.test.grades.values()
    ]
    wrong = {text for pair in corpus.train for text in pair.negatives}
    against = [
        any(corpus.test.documents[d] in wrong for d, grade in judged.items() if grade > 0)
        for judged in corpus.test.grades.values()
    ]
    counted = {
        "test queries have a relevant document that is a training negative": sum(against),
        "test queries are training queries": asked,
        "test queries have a relevant document that answers a training query": sum(answers),
    }
    return [f"{n:,} {what}" for what, n in counted.items() if n]

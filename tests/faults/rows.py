"""What a run promises for each fault: exit code, message, state afterwards."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable)


class Row(NamedTuple):
    """One fault and what is promised for it."""

    fault: str
    code: str
    says: str
    after: str


def row(*numbers: int, broken: str) -> Callable[[Test], Test]:
    """Mark a test as a proof of these rows, which fails when the code is `broken` this way.

    >>> @row(5, broken="a second signal leaves with 1")
    ... def test_that_it_leaves(): ...
    >>> test_that_it_leaves.pytestmark[0].args
    (5,)
    """
    return pytest.mark.fault(*numbers, broken=broken)


RESUMES = "the same command resumes and ends bit-equal to the uninterrupted run"
ROWS = {
    1: Row(
        "`kill -9` at any moment, during a save too",
        "-9",
        "(nothing)",
        f"{RESUMES}; metrics.jsonl has each step once",
    ),
    2: Row("SIGTERM", "75", "finishing this step and saving", f"the step is saved; {RESUMES}"),
    3: Row(
        "SIGTERM to one of several processes",
        "75 from all",
        "finishing this step and saving",
        "all have saved the same step",
    ),
    4: Row(
        "SIGTERM while nothing listens (a long compilation)",
        "75 after 25 s; 130 at a second signal",
        "no answer in 25 s (compiling?), leaving",
        "the last checkpoint stands",
    ),
    5: Row(
        "Ctrl-C once; twice",
        "75; 130",
        "again to quit now",
        "once: as row 2; twice: the last checkpoint stands",
    ),
    6: Row(
        "disk full during a save",
        "4",
        "path, step, 'free some space and run again'",
        f"older steps are whole; with space, {RESUMES}",
    ),
    7: Row(
        "read-only workdir, or a file in its place",
        "2",
        "'cannot be used', and why",
        "nothing was compiled or written",
    ),
    8: Row("relative workdir", "0", "its absolute path", "everything is under it"),
    9: Row(
        "newest checkpoint cut, emptied, garbled, or a file of it missing",
        "0; 4 with --strict_resume",
        "warning: which step and why",
        "resumed from the newest good step; the bad one is kept, as bad-STEP after the next save",
    ),
    10: Row(
        "one byte flipped in the newest checkpoint's array data",
        "0; 4 with --strict_resume",
        "warning: the step, the leaf, CRC32",
        "as row 9, at each of 100 positions",
    ),
    11: Row("stray folder named like a step", "0", "(nothing)", "ignored and left alone"),
    12: Row(
        "remains of a save that was cut off",
        "0",
        "(nothing)",
        "ignored by a restore, removed by the first save",
    ),
    13: Row(
        "two runs in one workdir",
        "6, the second",
        "pid, host and start of the first",
        "the first is unaffected; the lock is free right after `kill -9`",
    ),
    14: Row(
        "resume with a changed config",
        "2; 0 for length, logging, evaluation",
        "key: old -> new",
        "nothing is changed; config.json may be lost: the checkpoint knows its config too",
    ),
    15: Row(
        "checkpoint of another architecture",
        "4",
        "the leaf, both shapes, the folder",
        "nothing is changed",
    ),
    16: Row(
        "resume on another number of devices",
        "0",
        "note: equal to rounding, not bit for bit",
        "the same data order; the loss within 1e-3",
    ),
    17: Row(
        "loss or update becomes NaN or infinite",
        "5",
        "the metric and the step",
        "stopped before the next checkpoint; nonfinite.json has the examples of those steps",
    ),
    18: Row(
        "invalid examples: label out of range, all-black images",
        "3; 0",
        "the split, the label, its index",
        "zero-norm embeddings give finite losses and gradients",
    ),
    19: Row(
        "non-finite gradient of one batch",
        "5; 0 with optimizer.skip_nonfinite",
        "grad_norm and the step",
        "as row 17; a step that is skipped leaves parameters, moments and batch statistics as they "
        "were and is counted in its row, and too many in a row end with 5",
    ),
    20: Row(
        "corrupt record in the data",
        "3; 0 with data.on_corrupt=skip",
        "the folder, the split, the example",
        "nothing was trained; of training images that are skipped, how many and which",
    ),
    21: Row(
        "data missing, in another format or version",
        "3",
        "the command that prepares it; a config without download",
        "the network was not asked",
    ),
    22: Row(
        "a worker process killed",
        "134 from the others, within 30 s",
        "that another died",
        f"restart: {RESUMES}",
    ),
    23: Row(
        "the coordinator killed",
        "134 from the others, at once",
        "that another died",
        f"restart: {RESUMES}",
    ),
    24: Row(
        "a peer that never starts, a wrong address, a taken port",
        "134; 2 for flags that cannot be meant",
        "which address, how long it waited",
        "nothing was written",
    ),
    25: Row(
        "processes that disagree about config, code, data or workdir",
        "2 from all",
        "what differs",
        "nothing was written",
    ),
    26: Row(
        "config: unknown key, wrong type, out of range, no such file, stray word",
        "2",
        "three lines at most, with the nearest name that exists",
        "nothing is left behind",
    ),
    27: Row(
        "batch that the devices do not divide",
        "2",
        "the nearest that they do",
        "nothing was compiled",
    ),
    28: Row(
        "hostile files: pickles, members that point outside, huge images",
        "3; 4 in a checkpoint",
        "the file and the reason",
        "nothing was executed, nothing written outside the target",
    ),
    29: Row(
        "clock that jumps back, file times in the wrong order",
        "0",
        "(nothing)",
        "bit-equal; the newest step is the highest",
    ),
    30: Row(
        "broken metrics sink",
        "0",
        "one warning: writing TensorBoard events stops here",
        "metrics.jsonl is complete",
    ),
    31: Row(
        "an error in the code of the run right after a save began",
        "1, with its traceback",
        "the error, not hidden by closing",
        f"the save is completed; {RESUMES}",
    ),
    32: Row(
        "out of memory",
        "5",
        "the batch a device holds, and what to make smaller",
        "the last checkpoint stands",
    ),
    33: Row(
        "other data in the same workdir, while the run trains or when it is complete",
        "2; 0 where the same data has moved",
        "'was trained on other data', and what differs",
        "nothing is changed; config.json may be lost: the checkpoint knows its data too",
    ),
    34: Row(
        "fewer steps asked for than the checkpoint has",
        "2",
        "both numbers",
        "nothing is changed",
    ),
    35: Row(
        "a picture that cannot be drawn",
        "0",
        "warning: which picture and why",
        "the scores and the other pictures are there",
    ),
    36: Row(
        "`kill -9` while pictures are drawn",
        "-9",
        "(nothing)",
        "the scores are there; the same command says that the run is complete",
    ),
}

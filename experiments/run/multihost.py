"""Several processes as one run: how they find each other, agree on what they run, and part.

Each host runs the same command. On Slurm and on Cloud TPU slices the processes find each other;
elsewhere each is started with --coordinator HOST:PORT --num_processes N --process_id I.
"""

import importlib.util
import json
import os
import re
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from contrastive_jax.data._errors import first_line
from contrastive_jax.errors import CheckpointError, ConfigError, PeerError, RunError
from experiments.run.signals import ABANDONED, STOPPED, StopRequested

FLAGS = {
    "coordinator": "HOST:PORT of process 0",
    "num_processes": "how many processes the run has; 1 searches for no others",
    "process_id": "which of them this is, from 0",
    "start_timeout": "seconds to wait for all to start",
}
HEARTBEAT_SECONDS = 30  # a process that is not heard of for so long is dead, and ends the others
START_SECONDS = 300
_LOST = re.compile("UNAVAILABLE|DEADLINE_EXCEEDED|Gloo|NCCL|[Cc]onnection|[Hh]eartbeat")
_A_DAY = 86400  # the others wait while process 0 scores the run


@contextmanager
def joined(flags: Mapping[str, str | None]) -> Iterator[None]:
    """Be one process of the run that the flags or the cluster describe; alone where neither does.

    Only process 0 speaks on stdout. At the end each waits for the others, unless it failed.

    Raises:
      ConfigError: flags that cannot be meant. PeerError: another process never came, or died.
    """
    _join(flags)
    if _alone():
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere:
            with redirect_stdout(sys.stdout if is_first() else nowhere):
                yield
    except (RunError, OSError, StopRequested):
        raise  # `leave` ends the others' wait
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(str(error)):
            raise PeerError(
                f"Process {jax.process_index()} lost another process of the run, or its network:\n"
                f"{first_line(error)}.\n"
                "See what that one said, and run the same command again in all."
            ) from error
        traceback.print_exc()
        leave(1)
    jax.distributed.shutdown()


def exit_code(error: BaseException) -> int:
    """Give the exit code of a command that ends with this error."""
    if isinstance(error, RunError):
        return error.exit_code
    if isinstance(error, OSError):
        return CheckpointError.exit_code
    codes = {StopRequested: STOPPED, KeyboardInterrupt: ABANDONED}
    return codes.get(type(error), 1)


def leave(code: int) -> NoReturn:
    """Exit; at once where the run did not end well, since Python would wait for the others."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def is_first() -> bool:
    """Whether this is the process that prints, writes and scores."""
    return _alone() or jax.process_index() == 0


def summary() -> dict[str, str]:
    """Describe several processes for the banner."""
    if _alone():
        return {}
    text = f"{jax.process_count()}; if one dies, all end within {HEARTBEAT_SECONDS} s (code 134)"
    return {"processes": text}


@contextmanager
def agreed() -> Iterator[dict[str, Any]]:
    """Run a block that all processes pass, or none: what it puts into its dict must be the same.

    A value that costs time to find is a function, called where there are several processes.

    Raises:
      ConfigError: the values differ, in every process.
      RunError: the block failed in another process, with that one's message and exit code.
    """
    shared: dict[str, Any] = {}
    try:
        yield shared
    except BaseException as error:
        if not _alone():
            _share({"error": str(error), "code": exit_code(error)})
        raise
    if _alone():
        return
    known = {name: value() if callable(value) else value for name, value in shared.items()}
    entries = _share({"values": known})
    for process, entry in enumerate(entries):
        if "error" in entry:
            error = RunError(f"Process {process} stopped: {entry['error']}")
            error.exit_code = entry["code"]
            raise error
    _compare([entry["values"] for entry in entries])


def _alone() -> bool:
    """Without a look at the devices, which another run may hold."""
    return not jax.distributed.is_initialized()


def _join(flags: Mapping[str, str | None]) -> None:
    seconds = _number(flags, "start_timeout", START_SECONDS, 1)
    wanted = _wanted(flags)
    if wanted is None or jax.distributed.is_initialized():
        return
    if wanted.get("process_id") == 0:
        _check_port(wanted)
    # Its C++ handler would swallow SIGTERM; `parallel.any_process` carries the news instead.
    jax.config.update("jax_enable_preemption_service", False)
    timer = threading.Timer(seconds, _give_up, [wanted, seconds])
    timer.daemon = True
    timer.start()  # JAX's own time-out prints a long trace from C++
    try:
        jax.distributed.initialize(
            **wanted,
            initialization_timeout=seconds + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_A_DAY,
        )
    except ValueError as error:
        if wanted or "coordinator_address should be defined" not in str(error):
            raise  # else libtpu is installed where there is no TPU
    except RuntimeError as error:
        raise _no_entry(wanted, error) from error
    finally:
        timer.cancel()


def _wanted(flags: Mapping[str, str | None]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`: none where it finds out itself, None for alone."""
    names = ("coordinator", "num_processes", "process_id")
    given = [name for name in names if flags.get(name) is not None]
    count, process = _number(flags, "num_processes", 1, 1), _number(flags, "process_id", 0, 0)
    if not given:
        return {} if _in_cluster() else None
    if given == ["num_processes"] and count == 1:
        return None
    if len(given) < len(names):
        missing = sorted(set(names) - set(given))[0]
        raise ConfigError(f"--{given[0]} was given without --{missing}; give all three or none.")
    if process >= count:
        raise ConfigError(f"--process_id is {process}; {count} processes are 0 to {count - 1}.")
    address = str(flags["coordinator"])
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--coordinator is {address!r}; give HOST:PORT.")
    return {"coordinator_address": address, "num_processes": count, "process_id": process}


def _number(flags: Mapping[str, str | None], name: str, default: int, least: int) -> int:
    text = flags.get(name) or str(default)
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"--{name} is {text!r}; give a whole number from {least} up.")
    return int(text)


def _in_cluster() -> bool:
    """Whether to look for other processes: in a Slurm step of several tasks, or with TPUs."""
    slurm = "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return slurm or importlib.util.find_spec("libtpu") is not None


def _check_port(wanted: Mapping[str, Any]) -> None:
    """JAX's runtime may crash on a port that is taken, without a word."""
    port = int(wanted["coordinator_address"].rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise _no_entry(wanted, error) from error


def _no_entry(wanted: Mapping[str, Any], error: Exception) -> PeerError:
    return PeerError(
        f"{_place(wanted)} cannot join the run: {first_line(error)}.\n"
        "Does another run of this machine hold the port?"
    )


def _give_up(wanted: Mapping[str, Any], seconds: int) -> None:
    print(
        f"error: {_place(wanted)} waited {seconds} s, and not all have come.\n"
        "Start every process with the same --coordinator and --num_processes, each with its own\n"
        "--process_id; the port must be open between the hosts.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(PeerError.exit_code)


def _place(wanted: Mapping[str, Any]) -> str:
    if not wanted:
        return "A process of this cluster"
    process, count = wanted["process_id"], wanted["num_processes"]
    return f"Process {process} of {count} (coordinator {wanted['coordinator_address']})"


def _share(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of all processes, in their order."""
    text = np.frombuffer(json.dumps(entry).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _compare(shared: Sequence[Mapping[str, Any]]) -> None:
    differences = []
    for name in sorted({name for values in shared for name in values}):
        other = next((i for i, f in enumerate(shared) if f.get(name) != shared[0].get(name)), None)
        if other is not None:
            mine, its = shared[0].get(name), shared[other].get(name)
            differences.append(f"{name}: {mine!r} in process 0, {its!r} in process {other}")
    if differences:
        raise ConfigError(
            f"The {len(shared)} processes of this run disagree. {'; '.join(differences[:3])}.\n"
            "Start all of them with the same command, code and data."
        )

"""Inject faults from within a command.

python -m tests.faults.inject FAULT,FAULT experiments.simclr --config ...

A fault is `name` or `name:argument`: a function of this module. What happens at a step happens in
the callback of the launcher that is called after each step, in every process.
"""

import contextlib
import ctypes
import os
import resource
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import figures
from contrastive_jax.errors import DataError
from contrastive_jax.training import checkpoint, loop, optim
from experiments.run import build, console, lifecycle, multihost, signals
from experiments.run.build import Experiment, Run
from tests.faults import sabotage


def apply(faults: Sequence[str]) -> None:
    """Arm these faults in this process, and the sabotage that the environment names."""
    for fault in faults:
        name, _, argument = fault.partition(":")
        globals()[name](*([argument] if argument else []))
    sabotage.apply(os.environ.get("FAULTS_SABOTAGE", ""))


def _in_kind(**functions: Any) -> None:
    """Replace functions of the kind of data that the command works on."""
    make = build.build

    def replaced(experiment: Experiment, *args: Any) -> Run:
        kind = experiment.kind._replace(**functions)
        return make(experiment._replace(kind=kind), *args)

    build.build = replaced


def unscored() -> None:
    """The command ends where training ends."""
    _in_kind(score=lambda *args, **kwargs: {"evaluations": []})


def at_step(step: str, inject: Callable[[], None]) -> None:
    """Inject right after a step was dispatched."""
    writers = lifecycle._writers

    def with_fault(*args: Any) -> Any:
        write, on_step = writers(*args)

        def then_inject(now: int) -> None:
            on_step(now)
            if now == int(step):
                inject()

        return write, then_inject

    lifecycle._writers = with_fault


def kill(step: str) -> None:
    """SIGKILL right after a step."""
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def after_save(step: int, inject: Callable[[], None]) -> None:
    """Inject once the save of a step was handed to Orbax, which continues in the background."""
    save = checkpoint.Checkpointer.save

    def then_inject(self: Any, now: int, *args: Any, **kwargs: Any) -> None:
        save(self, now, *args, **kwargs)
        if now == step:
            inject()

    checkpoint.Checkpointer.save = then_inject


def kill_in_save(step_and_ms: str) -> None:
    """SIGKILL so many milliseconds after the save of a step began."""
    step, milliseconds = step_and_ms.split("+")

    def kill_later() -> None:
        time.sleep(int(milliseconds) / 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    after_save(int(step), kill_later)


def raises(step: str) -> None:
    """An error in the code of the run, right after a save began."""

    def fail() -> None:
        raise ValueError("injected")

    after_save(int(step), fail)


def terminate(step: str) -> None:
    """SIGTERM right after a step."""
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))


def interrupt(step: str) -> None:
    """Ctrl-C right after a step."""
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGINT))


def interrupt_twice(step: str) -> None:
    """Ctrl-C, and again before the step is saved."""
    interrupt(step)
    interrupt(step)


def compiling() -> None:
    """The compilation of the training step is C code that never returns."""
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)

    def never(*args: Any) -> None:
        # said once this thread is there: a signal before that would be heard
        threading.Timer(0.5, print, ("compiling",), {"flush": True}).start()
        for _ in range(2):  # the second time waits for the first, which holds it
            library.pthread_mutex_lock(mutex)

    loop.make_train_step = never


def pause(step_and_file: str) -> None:
    """After a step, wait until a file exists."""
    step, file = step_and_file.split("+")

    def wait() -> None:
        print("paused", flush=True)
        while not os.path.exists(file):
            time.sleep(0.01)

    at_step(step, wait)


def leave_before_training() -> None:
    """SIGTERM as soon as the banner is printed: what a start says, without the cost of a step."""
    banner = console.banner

    def then_terminate(summary: Any) -> None:
        banner(summary)
        os.kill(os.getpid(), signal.SIGTERM)

    console.banner = then_terminate


def full_disk_after(step: str) -> None:
    """From a step on no file may grow beyond 12 KiB, which a row of metrics does not need."""
    limit = (12 << 10, 12 << 10)
    at_step(step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))


def fill(step_and_file: str) -> None:
    """After a step, fill the disk to its last byte."""
    step, file = step_and_file.split("+")

    def write() -> None:
        with contextlib.suppress(OSError), open(file, "wb", buffering=0) as ballast:
            while ballast.write(bytes(512)):
                pass

    at_step(step, write)


def nan_update(step: str) -> None:
    """The optimizer's update of one step is NaN; its loss and its gradient are finite."""
    make = optim.make

    def poisoned(**kwargs: Any) -> Any:
        optimizer, schedule = make(**kwargs)

        def update(grads: Any, state: Any, params: Any) -> Any:
            counts = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.integer)]
            factor = jnp.where(counts[0] + 1 == int(step), jnp.nan, 1.0)
            updates, state = optimizer.update(grads, state, params)
            return jax.tree.map(lambda u: u * factor, updates), state

        return optax.GradientTransformation(optimizer.init, update), schedule

    optim.make = poisoned


def nan_loss(step: str) -> None:
    """The loss of one step is NaN."""
    _poison(int(step), lambda w: w.sum() * jnp.nan)


def nan_gradient(step: str) -> None:
    """The gradient of one step is NaN; its loss is finite."""
    _poison(int(step), lambda w: jnp.sqrt(0 * w.sum()))


def _poison(injected: int, term: Callable[[jax.Array], jax.Array]) -> None:
    make = build.build

    def poisoned(*args: Any) -> Run:
        run = make(*args)

        def loss(params: Any, model_state: Any, batch: Any, key: jax.Array, step: jax.Array) -> Any:
            value, out = run.objective.loss(params, model_state, batch, key, step)
            w = jax.tree.leaves(params)[0]
            return value + jax.lax.cond(step == injected - 1, term, lambda w: (0 * w).sum(), w), out

        return run._replace(objective=run.objective._replace(loss=loss))

    build.build = poisoned


def clock_backwards() -> None:
    """Each reading of the clock is a day earlier than the one before."""
    readings, now = iter(range(10**9)), time.time
    time.time = lambda: now() - 86400 * next(readings)


def out_of_memory(step: str) -> None:
    """What XLA raises when an allocation fails."""

    def fail() -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    at_step(step, fail)


def offline() -> None:
    """Whoever asks the network fails."""

    def refuse(*args: Any) -> None:
        raise AssertionError("an attempt to use the network")

    socket.socket.connect = refuse
    socket.getaddrinfo = refuse


def impatient() -> None:
    """A signal that is not heard is waited for a second."""
    signals.GRACE_SECONDS = 1


def patient() -> None:
    """On a machine that is busy, no heartbeat is late."""
    multihost.HEARTBEAT_SECONDS = 600


def no_data() -> None:
    """The data set cannot be read."""

    def load(config: Any) -> Any:
        raise DataError("injected")

    _in_kind(load=load)


def undrawable() -> None:
    """A picture cannot be drawn."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise LookupError("no font")

    figures.embedding_map = fail


def kill_in_pictures() -> None:
    """SIGKILL as soon as the first picture is drawn."""
    figures.views_grid = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    faults, module = sys.argv[1:3]
    sys.argv = [module, *sys.argv[3:]]
    apply([fault for fault in faults.split(",") if fault])
    runpy.run_module(module, run_name="__main__", alter_sys=True)

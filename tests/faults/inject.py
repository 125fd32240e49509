"""Faults that are struck from within a command.

python -m tests.faults.inject FAULT,FAULT experiments.simclr --config ...

A fault is `name` or `name:argument`: a function of this module. What strikes at a step uses the
progress line of the launcher, which is called after each step.
"""

import contextlib
import ctypes
import os
import resource
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import training
from contrastive_jax.errors import DataError
from contrastive_jax.training import checkpoint, loop, optim
from experiments.run import console, lifecycle, multihost, signals
from experiments.scoring import summary
from tests.faults import sabotage


def apply(faults: Sequence[str]) -> None:
    """Arm these faults in this process, and the sabotage that the environment names."""
    for fault in faults:
        name, _, argument = fault.partition(":")
        globals()[name](*([argument] if argument else []))
    sabotage.apply(os.environ.get("FAULTS_SABOTAGE", ""))


def unscored() -> None:
    """The command ends where training ends."""
    summary.score = lambda *args, **kwargs: {"evaluations": []}


def at_step(step: str, strike: Callable[[], None]) -> None:
    on_step = console.Progress.on_step

    def struck(self: Any, now: int) -> None:
        on_step(self, now)
        if now == int(step):
            strike()

    console.Progress.on_step = struck
    silent = lifecycle._NOWHERE
    lifecycle._NOWHERE = (silent[0], lambda now: strike() if now == int(step) else None)


def kill(step: str) -> None:
    """SIGKILL right after a step."""
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def after_save(step: int, strike: Callable[[], None]) -> None:
    """Strike once the save of a step was handed to Orbax, which goes on in the background."""
    save = checkpoint.Checkpointer.save

    def struck(self: Any, now: int, *args: Any, **kwargs: Any) -> None:
        save(self, now, *args, **kwargs)
        if now == step:
            strike()

    checkpoint.Checkpointer.save = struck


def kill_in_save(step_and_ms: str) -> None:
    """SIGKILL so many milliseconds after the save of a step began."""
    step, milliseconds = step_and_ms.split("+")

    def strike() -> None:
        time.sleep(int(milliseconds) / 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    after_save(int(step), strike)


def raises(step: str) -> None:
    """An error in the run's own code, right after a save began."""

    def strike() -> None:
        raise ZeroDivisionError("struck")

    after_save(int(step), strike)


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
        print("compiling", flush=True)
        for _ in range(2):  # the second time waits for the first, which holds it
            library.pthread_mutex_lock(mutex)

    loop.make_train_step = never


def pause(step_and_file: str) -> None:
    """After a step, wait until a file exists."""
    step, file = step_and_file.split("+")

    def strike() -> None:
        print("paused", flush=True)
        while not os.path.exists(file):
            time.sleep(0.01)

    at_step(step, strike)


def leave_before_training() -> None:
    """SIGTERM as soon as the banner is printed: what a start says, without the cost of a step."""
    banner = console.banner

    def struck(facts: Any) -> None:
        banner(facts)
        os.kill(os.getpid(), signal.SIGTERM)

    console.banner = struck


def full_disk_after(step: str) -> None:
    """From a step on no file may grow beyond 12 KiB, which a row of metrics does not need."""
    limit = (12 << 10, 12 << 10)
    at_step(step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))


def fill(step_and_file: str) -> None:
    """After a step, fill the disk to its last byte."""
    step, file = step_and_file.split("+")

    def strike() -> None:
        with contextlib.suppress(OSError), open(file, "wb", buffering=0) as ballast:
            while ballast.write(bytes(512)):
                pass

    at_step(step, strike)


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


def _poison(step: int, term: Callable[[jax.Array], jax.Array]) -> None:
    build = lifecycle.build

    def poisoned(*args: Any) -> lifecycle.Run:
        run = build(*args)
        root = training.stream_key(run.plan.seed, training.AUGMENT_STREAM)
        struck = jax.random.key_data(jax.random.fold_in(root, step - 1))

        def loss(params: Any, model_state: Any, batch: Any, key: jax.Array) -> Any:
            value, out = run.objective.loss(params, model_state, batch, key)
            hit = (jax.random.key_data(key) == struck).all()
            w = jax.tree.leaves(params)[0]
            return value + jax.lax.cond(hit, term, lambda w: (0 * w).sum(), w), out

        return run._replace(objective=run.objective._replace(loss=loss))

    lifecycle.build = poisoned


def clock_backwards() -> None:
    """Each look at the clock is a day earlier than the one before."""
    looks, now = iter(range(10**9)), time.time
    time.time = lambda: now() - 86400 * next(looks)


def out_of_memory(step: str) -> None:
    """What XLA raises when an allocation fails."""

    def strike() -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    at_step(step, strike)


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

    def load(**kwargs: Any) -> Any:
        raise DataError("struck")

    lifecycle.build.__defaults__ = (load,)


if __name__ == "__main__":
    faults, module = sys.argv[1:3]
    sys.argv = [module, *sys.argv[3:]]
    apply([fault for fault in faults.split(",") if fault])
    runpy.run_module(module, run_name="__main__", alter_sys=True)

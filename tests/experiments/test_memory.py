"""Freed memory stays in the process: later steps take no new pages."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import jax, jax.numpy as jnp
from experiments.run import memory

if {keep}:
    memory.keep_freed()
x, w = jnp.ones((256, 1024)), jnp.ones((1024, 8192))
step = jax.jit(lambda x, w: jax.grad(lambda w: (jnp.tanh(x @ w) @ w.T).sum())(w).sum())
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # until blocks have found their places
    step(x, w).block_until_ready()
before = faults()
for _ in range(5):
    step(x, w).block_until_ready()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is of glibc")
def test_later_steps_take_no_new_pages():
    def faults(keep):
        words = [sys.executable, "-c", STEPS.format(keep=keep)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults(True) < 0.1 * faults(False)

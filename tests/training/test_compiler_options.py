"""Compiler options: those that this XLA knows, on the device that they are for."""

from types import SimpleNamespace

import numpy as np

from contrastive_jax import parallel
from contrastive_jax.training import compiler_options


def mesh_on(platform: str):
    return SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))


def test_options_are_for_cpus_alone():
    on_cpu = parallel.make_mesh()
    assert compiler_options.for_single_use(on_cpu) == {"xla_backend_optimization_level": 1}
    assert set(compiler_options.for_steps(on_cpu) or ()) <= {"xla_cpu_experimental_ynn_fusion_type"}
    for platform in ("gpu", "tpu"):
        assert compiler_options.for_steps(mesh_on(platform)) is None
        assert compiler_options.for_single_use(mesh_on(platform)) is None


def test_an_option_that_xla_does_not_know_is_left_out():
    known = ("xla_backend_optimization_level", 1)
    assert compiler_options._known((known, ("xla_cpu_no_such_option", ""))) == dict([known])

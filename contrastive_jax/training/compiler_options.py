"""Compiler options of XLA for each kind of device."""

import functools

import jax

from contrastive_jax.parallel import Mesh

Options = dict[str, bool | int | str]

# What runs once need not run fast, and compiles several times as fast so, to the same bits.
_RUN_ONCE: Options = {"xla_backend_optimization_level": 1}
# XLA's CPU backend hands convolutions, products and reductions to YNNPACK (jaxlib 0.10.2).
# Convolutions lose by it, reductions gain and products do neither: with Eigen's kernels for the
# others the step of a ResNet-18 on two threads takes a quarter less
# (benchmarks/results/compiler_options_cpu.json).
_YNNPACK_REDUCES: Options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def for_steps(mesh: Mesh) -> Options | None:
    """For a step that runs many times."""
    return (_known(tuple(_YNNPACK_REDUCES.items())) or None) if _on_cpu(mesh) else None


def for_single_use(mesh: Mesh) -> Options | None:
    """For a program such as the first state's."""
    return _RUN_ONCE if _on_cpu(mesh) else None


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


@functools.cache
def _known(options: tuple[tuple[str, bool | int | str], ...]) -> Options:
    """Those of the options that this version of XLA has."""
    return {name: value for name, value in options if _is_known(name, value)}


def _is_known(name: str, value: bool | int | str) -> bool:
    program = jax.jit(lambda: 0, compiler_options={name: value})
    try:
        program.lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

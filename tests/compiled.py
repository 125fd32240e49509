"""How the tests compile: quickly by default, as training does where the compiled program counts."""

import importlib.metadata

# Nearly all of the time of the tests goes into compiling programs that run a few times; like this
# it takes a quarter. `XLA_FLAGS= python -m pytest` compiles everything as training does. XLA ends
# the process at a flag that it does not know, and versions after 0.10 do not know the last one.
_SLOW = {
    "xla_backend_optimization_level": (0, 3),  # quickly, as in training
    "xla_llvm_disable_expensive_passes": (True, False),
}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _SLOW["xla_cpu_use_fusion_emitters"] = (False, True)
QUICKLY = tuple(f"--{name}={str(quick).lower()}" for name, (quick, _) in _SLOW.items())
AS_IN_TRAINING = {name: trained for name, (_, trained) in _SLOW.items()}

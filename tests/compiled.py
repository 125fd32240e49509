"""How the tests compile: quickly by default, as training does where the compiled program counts."""

# Nearly all of the time of the tests goes into compiling programs that run a few times; like this
# it takes a quarter. `XLA_FLAGS= python -m pytest` compiles everything as training does.
QUICKLY = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)
AS_IN_TRAINING = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}

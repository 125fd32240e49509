"""Who may import whom, read from the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "contrastive_jax"
BASE = {"types", "errors", "_numerics"}
ALLOWED = {
    "types": set(),
    "_numerics": set(),
    "errors": set(),
    "export": BASE | {"encoders", "augment", "storage"},
    "objectives": BASE | {"encoders", "losses", "augment", "parallel", "evaluation", "queue"},
    "training": BASE | {"parallel"},
}
ONLY_IN = {  # a library -> the folders and modules that may import it at all
    "flax": {"encoders", "objectives"},
    "orbax": {"training"},
    "jax.sharding": {"parallel"},
    "absl": {"data"},  # grain asks it for settings
    "ml_collections": set(),
}
ONLY_INSIDE_FUNCTIONS = (
    "tensorflow_datasets",
    "matplotlib",
    "scipy",
    "sklearn",
    "PIL",
    "tensorboardX",
    "grain",
    "absl",
)


def library_files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def room(path: Path) -> str:
    """The module or subpackage that a file belongs to."""
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def imported(nodes) -> set[str]:
    """Full names of what import statements bring in."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", library_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    names = imported(ast.walk(ast.parse(path.read_text())))
    own = room(path)
    rooms = {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE}.")}
    assert rooms - {own} <= ALLOWED.get(own, BASE)
    assert not any(name.startswith(("experiments", "configs")) for name in names)
    for library, owners in ONLY_IN.items():
        if own not in owners:
            assert not any(name == library or name.startswith(f"{library}.") for name in names)


@pytest.mark.parametrize("path", library_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_are_imported_inside_functions(path: Path):
    at_the_top = imported(ast.parse(path.read_text()).body)
    assert not [name for name in at_the_top if name.startswith(ONLY_INSIDE_FUNCTIONS)]


def test_configs_see_only_ml_collections_and_verdicts():
    seen = ("ml_collections", "configs.", "contrastive_jax.evaluation.claims")
    for path in (ROOT / "configs").rglob("*.py"):
        names = imported(ast.walk(ast.parse(path.read_text())))
        assert all(name.startswith(seen) for name in names), path

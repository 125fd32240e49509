"""Who may import whom, read from the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "contrastive_jax"
BASE = {"types", "errors", "_numerics"}
ALLOWED = {  # module or package of the library -> what it may import; others may import BASE
    "types": set(),
    "errors": set(),
    "_numerics": set(),
    "export": BASE | {"encoders", "augment", "storage"},
    "objectives": BASE
    | {"encoders", "losses", "augment", "parallel", "queue", "grad_cache", "frozen"}
    | {"evaluation.diagnostics"},
    "sentence_folder": BASE | {"encoders", "data.text", "evaluation.texts", "storage"},
    "training": BASE | {"parallel", "frozen"},
    "evaluation": BASE | {"parallel"},
}
ONLY_IN = {  # a library -> the only packages and modules that may import it
    "flax": ("encoders", "objectives"),
    "orbax": ("training.orbax_store",),
    "jax.sharding": ("parallel", "types"),
    "absl": ("data",),  # grain asks it for settings
    "ml_collections": (),
}
ONLY_INSIDE_FUNCTIONS = (
    *("tensorflow_datasets", "grain", "array_record", "absl", "PIL", "tokenizers"),
    *("safetensors", "matplotlib", "scipy", "sklearn"),
    *("tensorboardX", "wandb", "rich", "jinja2"),
)
Import = tuple[str, str]  # module of the library without the package's name, what it imports


def modules(folder: str = PACKAGE) -> Iterator[tuple[str, ast.Module]]:
    """(dotted name within the folder, syntax tree) of each file."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text())


def imports(nodes) -> set[str]:
    """Full names of what import statements bring in."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_in(name: str, parents) -> bool:
    """Whether a dotted name is one of these or below one.

    >>> is_in("flax.linen", ["flax"]), is_in("flaxen", ["flax"])
    (True, False)
    """
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def library_imports() -> list[Import]:
    return [(name, found) for name, tree in modules() for found in imports(ast.walk(tree))]


def test_imports_within_the_library_point_downwards():
    wrong = []
    for module, found in library_imports():
        part = module.partition(".")[0]
        allowed = {part, *ALLOWED.get(part, BASE)}
        inner = found.removeprefix(f"{PACKAGE}.")
        if found.startswith(f"{PACKAGE}.") and not is_in(inner, allowed):
            wrong.append((module, found))
    assert wrong == []


def test_the_library_knows_neither_experiments_nor_configs():
    outside = ("experiments", "configs", "tests", "benchmarks")
    assert [pair for pair in library_imports() if is_in(pair[1], outside)] == []


def test_a_library_is_imported_only_where_it_belongs():
    wrong = [
        (module, found)
        for module, found in library_imports()
        for library, owners in ONLY_IN.items()
        if is_in(found, [library]) and not is_in(module, owners)
    ]
    assert wrong == []


def test_heavy_libraries_are_imported_inside_functions():
    at_the_top = [(name, found) for name, tree in modules() for found in imports(_top(tree))]
    assert [pair for pair in at_the_top if is_in(pair[1], ONLY_INSIDE_FUNCTIONS)] == []


def _top(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs at import: everything outside of functions."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def test_configs_import_only_ml_collections_and_claims():
    allowed = ("ml_collections", "configs", "contrastive_jax.evaluation.claims")
    found = [(name, x) for name, tree in modules("configs") for x in imports(ast.walk(tree))]
    assert [pair for pair in found if not is_in(pair[1], allowed)] == []


def test_the_roots_hold_little():
    """Of the library: what a person imports by name. Of experiments: what a person runs."""
    root = sorted(path.name for path in (ROOT / PACKAGE).glob("*.py"))
    assert len(root) <= 9, root
    scripts = sorted((ROOT / "experiments").glob("[a-z]*.py"))
    assert len(scripts) > 5
    assert [path.name for path in scripts if "__main__" not in path.read_text()] == []

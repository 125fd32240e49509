"""Nothing that a run reads can execute code, and nothing that it prints holds a secret."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIPPED = ("contrastive_jax", "experiments", "configs", "benchmarks")
FILES = sorted(path for folder in SHIPPED for path in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"extractall", "unpack_archive", "system", "popen", "import_module", "read_pickle"}
METHODS |= {"torch.load", "tar.extract"}
ALLOWED = {  # a name that the user of a command gives: their own encoder
    "contrastive_jax/encoders/__init__.py": ["call of importlib.import_module"],
}
DANGEROUS = [
    "import pickle",
    "from joblib import load",
    "np.load(f)",
    "np.load(f, allow_pickle=True)",
    "eval(text)",
    "exec(text)",
    "tar.extractall(path)",
    "tar.extract(member)",
    "shutil.unpack_archive(f)",
    "import yaml",
    "subprocess.run(text, shell=True)",
    "os.system(text)",
    "np.savez(f, allow_pickle=True)",
]
HARMLESS = [
    "import json",
    "np.load(f, allow_pickle=False)",
    "re.compile(text)",
    "subprocess.run(argv, shell=False)",
]


def refusals(source: str) -> list[str]:
    """What in a source could run code that came from outside.

    >>> refusals("import pickle")
    ['1: import of pickle']
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [f"{line}: import of {n}" for n in names if n.split(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"{line}: import of {node.module}")
        if isinstance(node, ast.Call):
            found += [f"{line}: {reason}" for reason in _of_call(node)]
    return found


def _of_call(node: ast.Call) -> list[str]:
    whole = ast.unparse(node.func)
    arguments = {argument.arg: ast.unparse(argument.value) for argument in node.keywords}
    reasons = []
    if whole in BUILTINS | METHODS or whole.rpartition(".")[2] in METHODS:
        reasons.append(f"call of {whole}")
    if whole in ("np.load", "numpy.load") and arguments.get("allow_pickle") != "False":
        reasons.append(f"{whole} without allow_pickle=False")
    if arguments.get("allow_pickle", "False") != "False" or arguments.get("shell") == "True":
        reasons.append(f"{whole} with {arguments}")
    return reasons


def test_no_file_could_run_code_that_came_from_outside():
    assert len(FILES) > 50
    found = {str(path.relative_to(ROOT)): refusals(path.read_text()) for path in FILES}
    reasons = {
        path: [r.partition(": ")[2] for r in lines] for path, lines in found.items() if lines
    }
    assert reasons == ALLOWED


def test_every_way_to_run_code_is_found():
    assert [source for source in DANGEROUS if not refusals(source)] == []
    assert [source for source in HARMLESS if refusals(source)] == []


def test_no_file_prints_or_keeps_the_environment():
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "json.dumps"):
                if "environ" in ast.unparse(node):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []

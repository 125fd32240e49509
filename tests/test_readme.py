"""The README is true: its tree, its code, its numbers, its commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_tree_has_one_line_for_each_file():
    tree = section("The file tree").split("```")[1]
    listed = {line.split()[0] for line in tree.strip().splitlines() if not line.startswith(" ")}
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.txt", "*.toml", "*.html", ".ci/run", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert listed == {name for name in tracked if name not in ("configs/__init__.py",)}


def test_the_code_of_the_page_runs():
    code = "\n".join(block for language, block in BLOCKS if language == "python")
    assert "nt_xent" in code
    exec(compile(code, "README.md", "exec"), {})


def test_the_results_are_those_of_the_files_they_name():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import record
    finally:
        sys.path.pop(0)
    assert record.table() in section("Results")


@pytest.mark.parametrize("command", re.findall(r"python -m (experiments\.\w+[^\n#]*)", README))
def test_commands_name_modules_and_configs_that_exist(command):
    module = command.split()[0].replace(".", "/") + ".py"
    assert (ROOT / module).is_file()
    for config in re.findall(r"--config (\S+?\.py)", command):
        assert (ROOT / config).is_file()

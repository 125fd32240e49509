"""Run several commands as `python -m` does, in one process: importing costs more than they do.

python tests/in_turn.py '[["experiments.simclr", "--config", "..."], ["experiments.report"]]'
"""

import json
import runpy
import sys


def main() -> None:
    """Run each; the first that fails ends the process with its exit code."""
    for module, *arguments in json.loads(sys.argv[1]):
        print(f"python -m {module} {' '.join(arguments)}", file=sys.stderr)
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    main()

"""Run the benchmarks: `python -m tests.benchmarks [NAME ...]` calls main() of every bench_NAME.py in this folder.

Times mean something only on a machine that does nothing else; each benchmark therefore runs what it compares in one go.
"""

import importlib
import sys
from pathlib import Path


def main(names: list[str]) -> int:
    """Runs the named benchmarks, all of them without a name; 2 when a name is unknown."""
    known = [path.stem.removeprefix("bench_") for path in sorted(Path(__file__).parent.glob("bench_*.py"))]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or known:
        module = importlib.import_module(f"tests.benchmarks.bench_{name}")
        print(f"\n== {name}: {module.__doc__.strip().splitlines()[0]}", flush=True)
        module.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

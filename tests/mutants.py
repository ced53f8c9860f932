"""`make mutants`: plants thirty faults in a copy of the library, one at a time, and shows that the tests catch each of them.

A fault is one line changed: in which file, what stands there, what is put in its place, and the tests that are to fail. Not part of
`make test`: it takes about ten minutes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAULTS: list[tuple[str, str, str, str]] = []


def plant(root: Path, file: str, old: str, new: str) -> None:
    """Change one place of a file. Raises ValueError unless it is there exactly once."""
    path = root / "course_lib" / file
    source = path.read_text("utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{file} has {source.count(old)} times, not once: {old}")
    path.write_text(source.replace(old, new), "utf-8")


def caught(root: Path, tests: str) -> tuple[bool, str]:
    """Whether the tests fail, and the last line of what they say."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    environment = os.environ | {"PYTHONPATH": str(root)}
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    failed = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return ran.returncode == 1 and bool(failed), (failed or ran.stdout.splitlines()[-1:])[0][:100]


def main() -> int:
    """Print a line for each fault; the number of those that no test caught."""
    lived = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "course"
        for file, old, new, tests in FAULTS:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__"))
            plant(root, file, old, new)
            begin = time.monotonic()
            found, said = caught(root, tests)
            lived += not found
            print(
                f"{'caught' if found else 'LIVES ':7s}{time.monotonic() - begin:4.0f} s  {file}: {new.strip()}\n    {said}",
                flush=True,
            )
    print(f"{len(FAULTS) - lived} of {len(FAULTS)} faults were caught")
    return lived


if __name__ == "__main__":
    sys.exit(main())

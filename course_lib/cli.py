"""The `course` command: lab, update, check, grade, train, validate, build. Whatever is slow to import is imported inside its command."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from course_lib.train.options import add_arguments as add_train_arguments


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0 done, 1 not all right, 2 could not be done."""
    parser = _parser()
    options, extra = parser.parse_known_args(argv)
    if extra and options.run is not _lab:
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        return options.run(options, extra)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="course", description="Learn distributed training by running it.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    command("lab", _lab, "open JupyterLab on the first lesson; further arguments go to JupyterLab")

    command("update", _update, "bring new pages into work/; what you wrote is never touched")

    sub = command("check", _check, "grade one exercise and say what is right, what is wrong and what to try")
    sub.add_argument("file", type=Path, help="the exercise that you filled in: exercises/05_data_parallel.ipynb")
    _add_grading_options(sub)

    sub = command("grade", _grade, "grade every notebook in a folder and the folders in it")
    sub.add_argument("folder", type=Path, help="where the notebooks were collected")
    sub.add_argument("--csv", type=Path, metavar="FILE", help="also write a table with one row for each task")
    _add_grading_options(sub)

    sub = command(
        "train", _train, "train a GPT on real text under any layout of ranks; the same arguments work under torchrun"
    )
    add_train_arguments(sub)

    command("validate", _validate, "hold the calculator of cost against published results, row by row")

    sub = command("build", _build, "build the notebooks whose source changed, and the exercises")
    sub.add_argument("names", nargs="*", help="how the names begin, for example 05 (default: all of the course)")
    sub.add_argument("--all", action="store_true", help="build even what is up to date")
    sub.add_argument(
        "--check", action="store_true", help="build nothing; say what is stale and exit with 1 if anything is"
    )
    return parser


def _add_grading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="how long one cell may take (default: five times what the solution takes, at least 30)",
    )
    parser.add_argument("--seed", type=int, help="grade once more with the seed of an earlier report (default: fresh)")


def _lab(options, extra: list[str]) -> int:
    from course_lib.authoring.build import find_root
    from course_lib.lab import WORK, copy_pages, write_settings

    root = find_root()
    try:
        write_settings()
    except OSError as error:
        print(f"course: JupyterLab's settings could not be written ({error}); widgets will not be saved with pages.")
    made, old = copy_pages(root)
    if made:
        print(f"course: {made} pages copied into {WORK}/, where you work; git does not track it.")
    if old:
        print(f"course: of {len(old)} pages there is a newer version; `course update` brings it.")
    first = f"{WORK}/notebooks/00_start_here.ipynb"
    address = f"/lab/tree/{first}" if (root / first).exists() else "/lab"
    print("course: starting JupyterLab; Ctrl-C stops it.", flush=True)
    line = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--log-level=WARN",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url={address}",
        *(["--ServerApp.allow_root=True"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),  # a container
        *extra,
    ]
    if os.name != "posix":
        return subprocess.call(line)
    # JupyterLab takes this process's place, so that Ctrl-C and signals reach it alone.
    os.execv(sys.executable, line)
    return 0


def _update(options, extra) -> int:
    from course_lib.authoring.build import find_root
    from course_lib.lab import WORK, update

    done = update(find_root())
    print(f"course update: {done['new']} new pages, {done['renewed']} renewed in {WORK}/.")
    if done["beside"]:
        print(
            f"In {done['beside']} you have written: yours stay as they are, the new ones lie beside them as NAME.new.ipynb."
        )
    return 0


def _check(options, extra) -> int:
    from course_lib.grading.grade import Grader, GradingError
    from course_lib.grading.report import table

    try:
        result = Grader(timeout_s=options.timeout, seed=options.seed, say=print).grade(options.file)
    except GradingError as error:
        print(f"course check: {error}", file=sys.stderr)
        return 2
    print(table(result))
    return 0 if result.passed else 1


def _grade(options, extra) -> int:
    from course_lib.grading.folder import grade_folder
    from course_lib.grading.grade import GradingError

    try:
        return grade_folder(options.folder, csv_file=options.csv, timeout_s=options.timeout, seed=options.seed)
    except GradingError as error:
        print(f"course grade: {error}", file=sys.stderr)
        return 2


def _train(options, extra) -> int:
    from course_lib.train.options import options_from
    from course_lib.train.start import start

    return start(options_from(options))


def _validate(options, extra) -> int:
    from course_lib.cost.report import table
    from course_lib.cost.validate import rows

    found = rows()
    print(table(found))
    held = [row for row in found if row.bound is not None]
    wrong = [row for row in held if not row.passes]
    print(
        f"\n{len(held) - len(wrong)} of {len(held)} rows are within their bounds; {len(found) - len(held)} more are shown."
    )
    return 1 if wrong else 0


def _build(options, extra) -> int:
    from course_lib.authoring import AuthoringError
    from course_lib.authoring.build import build, find_root, stale

    try:
        root = find_root()
        if options.check:
            found = stale(root)
            print("\n".join(found) if found else "everything is up to date")
            return 1 if found else 0
        build(root, tuple(options.names), everything=options.all)
    except AuthoringError as error:
        print(f"course build: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m course_lib.train …`, by itself or under torchrun."""

import argparse
import sys

from course_lib.train.options import add_arguments, options_from
from course_lib.train.start import start


def main() -> int:
    """Returns the exit status, as `course train`."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.train", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    return start(options_from(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

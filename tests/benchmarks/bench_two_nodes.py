"""The cliff between nodes, for real: one training run on two nodes, tensor parallel inside a node or across, the cable fast or slow.

The nodes are network namespaces on this machine and share its cores; the cable is limited by a token bucket (`tc tbf`).
"""

import re

from tests.two_nodes import run_on_two_nodes, unshare

STEPS = 15
ARGUMENTS = ["--tp", "2", "--dp", "2", "--batch", "32", "--layers", "4", "--steps", str(STEPS), "--warmup", "5"]
ORDERS = {"tp inside a node, dp across": "dp,tp", "tp across nodes, dp inside": "tp,dp"}
CABLES = {"without a limit": {}, "100 Mbit/s": {"mbit": 100}}


def main():
    """Print milliseconds of a step."""
    if unshare() is None:
        print("NOT RUN: two nodes need network namespaces: Linux that allows them, iproute2 and util-linux")
        return
    print(f"  {'':30s}{''.join(f'{name:>20s}' for name in CABLES)}")
    for where, order in ORDERS.items():
        row = []
        for cable in CABLES.values():
            run = run_on_two_nodes(["-m", "course_lib.train", *ARGUMENTS, "--order", order], timeout_s=300, **cable)
            speed = re.search(rf"{STEPS} steps in \S+, ([\d,]+) tokens/s", run.stdout)
            assert speed, run.stdout
            row.append(32 * 64 / float(speed[1].replace(",", "")))
        print(f"  {where:30s}{''.join(f'{1000 * seconds:17.0f} ms' for seconds in row)}", flush=True)


if __name__ == "__main__":
    main()

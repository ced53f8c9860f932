"""Two machines on one: two network namespaces joined by a cable (a veth pair), with torchrun in each.

    python -m tests.two_nodes '{"arguments": ["-m", "course_lib.train", …], "mbit": 100}'

The processes of a node see its own loopback and its end of the cable, and nothing else: what they say to the other node goes over
the cable. Nothing of it has a name, and all of it goes with its processes. Wants Linux, `unshare`, `nsenter`, `ip` and for a limit
`tc`, as root or as a user who may make namespaces.
"""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADDRESSES = "10.213.7.1", "10.213.7.2"  # in these namespaces alone
PORT = 29511
READY_S = 10
BRIEF = {"capture_output": True, "text": True, "timeout": 30}


@cache
def unshare():
    """How to get a network namespace with a cable here, as the beginning of a command; None if there is no way."""
    as_root = ["unshare", "--net"]
    as_user = ["unshare", "--user", "--map-root-user", "--net"]
    trial = ["sh", "-c", "ip link add veth0 type veth peer name veth1 && ip link set lo up && ls /proc/self/ns/net"]
    for way in (as_root, as_user):
        try:
            if subprocess.run([*way, *trial], **BRIEF).returncode == 0:
                return way
        except (OSError, subprocess.TimeoutExpired):
            pass
    return None


def run_on_two_nodes(arguments, *, ranks_per_node=2, mbit=None, latency_ms=0, timeout_s=120, max_restarts=0):
    """Run torchrun with these arguments on both nodes: the CompletedProcess, whose stdout has every line with its node.

    mbit, latency_ms: of the cable, in each direction; unlimited unless given.
    """
    plan = {
        "arguments": list(map(str, arguments)), "ranks_per_node": ranks_per_node, "mbit": mbit, "latency_ms": latency_ms,
        "max_restarts": max_restarts,
    }  # fmt: skip
    command = [*unshare(), sys.executable, "-m", "tests.two_nodes", json.dumps(plan)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # `main` stops both torchruns, which stop their ranks
        out, _ = process.communicate()
        out += f"\nnot done after {timeout_s} s"
    return subprocess.CompletedProcess(command, process.returncode, out)


def main(plan):
    """In the first node's namespace: make the second and the cable, run both, and return the first exit status that is not 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    other = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    nodes = []
    try:
        inside = ["nsenter", f"--net=/proc/{other.pid}/ns/net"]
        wait_until_apart(other.pid)
        run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", str(other.pid))
        for prefix, end, address in (([], "veth0", ADDRESSES[0]), (inside, "veth1", ADDRESSES[1])):
            run(*prefix, "ip", "address", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                run(*prefix, "ip", "link", "set", device, "up")
            if plan["mbit"] or plan["latency_ms"]:
                limit(prefix, end, plan["mbit"], plan["latency_ms"])
        for node, prefix in enumerate(([], inside)):
            nodes.append(subprocess.Popen([*prefix, *torchrun(node, plan)], env=environment(node)))
        return max((abs(node.wait()) for node in nodes), default=0)
    finally:
        for process in nodes:
            process.terminate()
        for process in nodes:
            process.wait()
        other.kill()


def torchrun(node, plan):
    """The command line of one node."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={plan['ranks_per_node']}",
        "--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}", "--rdzv-id=two-nodes",
        f"--rdzv-conf=is_host={int(node == 0)}",  # the nodes have one host name
        f"--local-addr={ADDRESSES[node]}", f"--max-restarts={plan['max_restarts']}", *plan["arguments"],
    ]  # fmt: skip


def environment(node):
    """That of one node's torchrun: gloo is told which device leads to the other."""
    return {**os.environ, "GLOO_SOCKET_IFNAME": f"veth{node}", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def limit(prefix, device, mbit, latency_ms):
    """Let a device send so much at most (a token bucket filter), and each packet only after a while (netem)."""
    parent = ["root"]
    if latency_ms:
        run(*prefix, "tc", "qdisc", "add", "dev", device, *parent, "handle", "1:", "netem", "delay", f"{latency_ms}ms")
        parent = ["parent", "1:"]
    if mbit:
        bucket = ["rate", f"{mbit}mbit", "burst", "256kb", "latency", "400ms"]
        run(*prefix, "tc", "qdisc", "add", "dev", device, *parent, "tbf", *bucket)


def wait_until_apart(pid):
    """Until that process has a network namespace of its own."""
    deadline = time.monotonic() + READY_S
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        if time.monotonic() > deadline:
            raise TimeoutError("the second node's namespace did not come to be")
        time.sleep(0.01)


def run(*command):
    """Run it, or say why it could not."""
    done = subprocess.run(command, **BRIEF)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))

"""One rank that torchrun has started: how it finds the others, also after a restart, and what it does then.

When a rank is gone, the others fail in their next collective. torchrun stops what is left on every node and starts all ranks again, as
often as --max-restarts says; they go on from the newest checkpoint.
"""

import contextlib
import os
import socket
import time
import uuid
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from course_lib.train.loop import train
from course_lib.train.options import Options, check_checkpoints
from course_lib.train.start import device_of, refuse

KEY = "course/store"


@record  # torchrun shows the first error
def train_as_a_rank(options: Options, backend: str) -> int:
    """Join the others and train. Returns the exit status."""
    rank, world_size, device = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device_of(backend)
    store, again = meet(rank)
    resume = options.resume or again
    if rank == 0:  # whose word counts; a restart need not have been asked to resume
        try:
            note = check_checkpoints(options, resume)
        except ValueError as error:
            return refuse(error)
        if note:
            print(note, flush=True)
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if backend == "nccl" else backend,
        store=store,
        rank=rank,
        world_size=world_size,
        device_id=torch.device(device) if backend == "nccl" else None,
    )
    train(options, device, resume)
    dist.destroy_process_group()
    return 0


def meet(rank: int, within_s: float = 300) -> tuple[dist.Store, bool]:
    """(a store in which the ranks of this attempt find each other, whether rank 0 knows of an attempt before).

    torchrun's own store outlives a restart, and still has the addresses of the ranks that are gone: a new rank would wait for one of
    them. So rank 0, which is where torchrun's store is, opens another, and says there at which port. A port that nobody is at any
    more, or somebody else, is one of before. (Not even TORCHELASTIC_RESTART_COUNT is the same on all nodes after a restart.)
    Raises TimeoutError if rank 0 does not come.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # then it is rank 0's own, and new
        store = next(dist.rendezvous("env://"))[0]
        return store, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    host = os.environ["MASTER_ADDR"]
    shared = dist.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False)
    if rank == 0:
        again = shared.check([KEY])
        store, token = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False), uuid.uuid4().hex
        store.set(KEY, token)
        shared.set(KEY, f"{store.port} {token}")
        return store, again
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        port, token = shared.get(KEY).decode().split()
        with contextlib.suppress(OSError, dist.DistError):
            socket.create_connection((host, int(port)), timeout=2).close()  # a store that fails prints a page
            store = dist.TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=2))
            if store.check([KEY]) and store.get(KEY).decode() == token:
                store.set_timeout(timedelta(seconds=within_s))
                return store, False
        time.sleep(0.1)
    raise TimeoutError(f"rank {rank}: rank 0 has not come within {within_s:g} s; see what it printed.")

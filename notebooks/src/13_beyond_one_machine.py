# %% [markdown]
# # 13 · Beyond one machine
#
# In an hour you will be able to
#
# - start a function on many machines, and say how its processes find each other,
# - save a run on one layout and go on with it on another, with the same curve, and say how often to save,
# - say what the others see when a rank dies, and what brings the job back,
# - find faults that nobody reports: runs whose loss falls and whose result is wrong.
#
# You need [chapter 05](05_data_parallel.ipynb); and of chapters [07](07_tensor_parallel.ipynb), [08](08_sequence_and_context_parallel.ipynb) and [09](09_pipeline_parallel.ipynb), what is cut and what is sent. The source ends with section 8.2.4, one job on 3,072 GPUs.
# This lesson is about the days after that job was started.
#
# **The question:** on 16,384 GPUs something broke every three hours, and the job took months. *How did it ever end, and how does anybody know that it computed the right thing?*
#
# Two ranks have saved a weight, each its rows. Another number of ranks goes on with it: choose one. Which rows change hands?

# %% jupyter={"source_hidden": true}
from course_lib.viz import sharding

sharding((6, 2), world_size=2, name="w")

# %%
import inspect
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from course_lib import Cluster, Link, launch
from course_lib.viz import predict, tally
from course_lib.viz.plots import new_plot

# %% [markdown]
# ## The same function, started by somebody else
#
# All chapters wrote functions for `launch`. Here is one more. It adds up over the ranks, and it looks at what its process was told by whoever started it:


# %%
def body():
    x = torch.tensor([float(dist.get_rank() + 1)])
    dist.all_reduce(x)
    told = [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")]
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, told)
    return x.item(), everyone


# %% tags=["nbval-check-output"]
print(launch(body, 2)[0])

# %% [markdown]
# A machine in a cluster has no notebook. There the function goes into a script, unchanged, between two lines that `launch` has written for you so far, and PyTorch's own launcher, **torchrun**, starts that script on each machine. (It takes some seconds: each rank imports PyTorch.)

# %%
before = "import os\nimport torch\nimport torch.distributed as dist\n\n"
after = """
dist.init_process_group("gloo")
found = body()
if dist.get_rank() == 0:
    print(found)
dist.destroy_process_group()
"""

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    script = Path(folder, "body.py")
    script.write_text(before + inspect.getsource(body) + after)
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    command = [*torchrun, "--standalone", "--nproc-per-node=2", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
print(done.stdout, end="")

# %% [markdown]
# The same. `init_process_group` reads who it is from **environment variables**, and torchrun has set them in each process:
#
# | variable | says |
# |---|---|
# | `WORLD_SIZE` | how many processes the job has, on all machines |
# | `RANK` | which of them this one is |
# | `LOCAL_RANK` | which it is on its machine: the number of its GPU |
# | `MASTER_ADDR`, `MASTER_PORT` | where to meet the others |
#
# Machines are called **nodes**. On two nodes with 8 GPUs each, `RANK` goes from 0 to 15, and `LOCAL_RANK` from 0 to 7, twice.
#
# ### How they meet
#
# Sixteen processes on two machines know one address. How do they become a job? At that address one of them opens a **store**: a small server with names and values. To write, to read, to wait until a name is there, and to add to a number, that is all it can do. It is enough. Here this notebook opens one, and two processes know its address alone, not who they are:


# %%
def meet(port):
    """Join the others through a store: the number that fell to this process, and all names."""
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    mine = store.add("joined", 1) - 1  # the store adds for one process at a time
    store.set(f"name {mine}", f"process {mine}")
    store.wait(["name 0", "name 1"])
    return mine, [store.get(f"name {i}").decode() for i in range(2)]


# %% tags=["nbval-check-output"]
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # 0: any free port
found = launch(meet, 2, store.port)
print("numbers given out:", sorted(number for number, _ in found))
print("both know:", found[0][1], found[0][1] == found[1][1])

# %% [markdown]
# That is **rendezvous**. torchrun does it between machines: each asks the store for a number, learns how many they are, and gives its processes their `RANK`. The processes do it once more, in `init_process_group`: each writes into the store at which address it can be reached, reads those of the others, and opens connections.
# From then on the store is hardly used. (`launch` uses a file as the store, since all ranks see one disk.)
#
# ## Two nodes
#
# On two machines, type the same command on both (`node0` is the name of either):
#
# ```sh
# torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=node0:29500 \
#     -m course_lib.train --dp 4 --tp 4 --checkpoint /shared/run
# ```
#
# `-m course_lib.train` is this course's own training command, all strategies of all chapters; `course train` is the same on one machine. A cluster's scheduler types for you. [The job for Slurm](../docs/train.slurm) starts torchrun once on each node, and takes the first one as the meeting place:
#
# ```sh
# sbatch docs/train.slurm --dp 4 --tp 4
# ```
#
# (No second machine at hand? [Our tests](../tests/two_nodes.py) make two nodes out of one: two network namespaces of Linux, which see nothing of each other but a virtual cable.)
#
# What changes for the program? The links. Inside a node an H100 sends 450 GB/s to its neighbours, between nodes 50 GB/s ([chapter 12](12_choosing_a_layout.ipynb)), and a message takes longer to set out. So it matters which ranks share a node. Take four ranks on two nodes of two, tensor parallel and data parallel, and of a step only what is sent: in each layer
# four all-reduces of activations, and one of all gradients.


# %%
def a_step(small, large):
    """Four layers of tensor parallel all-reduces in groups `small`, one of gradients in `large`."""
    few, many = (dist.new_subgroups_by_enumeration(ranks)[0] for ranks in (small, large))
    activations, gradients = torch.zeros(5_000), torch.zeros(100_000)
    dist.barrier()
    start = time.perf_counter()
    for _ in range(4 * 4):
        dist.all_reduce(activations, group=few)
    dist.all_reduce(gradients, group=many)
    return time.perf_counter() - start


inside, across = [[0, 1], [2, 3]], [[0, 2], [1, 3]]

# %% jupyter={"source_hidden": true}
predict(
    "Tensor parallel sends 16 × 20 kB, data parallel 1 × 400 kB. Which of them should stay inside a node?",
    {
        "Tensor parallel": (
            "Its 16 messages go one after the other, and each pays the latency of its link. The one "
            "message of data parallel pays it once."
        ),
        "Data parallel": (
            "It has more bytes, 400 kB against 320. But each message also pays the latency of its link, "
            "and tensor parallel has 16 of them."
        ),
        "It makes no difference": (
            "The bytes are nearly equal, 320 and 400 kB, but not the number of messages: each of them "
            "pays the latency of its link."
        ),
    },
    right=0,
)

# %% [markdown]
# The emulated links between the nodes are far slower than real ones, so that it shows on your machine:

# %%
two_nodes = Cluster(2, inside=Link(1e-5, 10), across=Link(5e-3, 0.04))
ways = {
    "tensor parallel inside a node": launch(a_step, 4, inside, across, link=two_nodes),
    "tensor parallel across": launch(a_step, 4, across, inside, link=two_nodes),
}
for name, run in ways.items():
    print(f"{name:30s} {1e3 * max(run):5.0f} ms (emulated links)")

# %% [markdown]
# Many messages in the critical path stay inside; few large ones, which can hide behind the computing, go across. So ranks are numbered with tensor parallel *innermost*, which puts its ranks side by side on a node, then data parallel, then the pipeline ([chapter 09](09_pipeline_parallel.ipynb)). The price of the wrong order is no error: only a slow job.

# %% [markdown]
# ### NCCL
#
# With a GPU for each rank, `"gloo"` becomes `"nccl"`, NVIDIA's library, which sends from GPU to GPU, over NVLink inside a node and InfiniBand or Ethernet between nodes. `launch` chooses it by itself. The calls are the same; this is not:
#
# - Each process takes its own GPU, first thing: `torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))`. Two ranks on one GPU is an error.
# - A collective **returns when it is queued**, not when it is done; it runs on the GPU beside the computing. So a clock needs `torch.cuda.synchronize()` before it is read, and an error or a hang shows at a later line than the one that caused it.
# - A rank that waits in vain is ended by a *watchdog*, [after 10 minutes](https://docs.pytorch.org/docs/stable/distributed.html) unless `init_process_group(timeout=…)` says otherwise; under gloo it is 30. All other ranks are waiting in that time.
# - Messages have no tags: between two ranks they arrive in the order in which they were sent. This course's pipeline and ring attention tell theirs apart by tags, so they need gloo so far.
# - `NCCL_DEBUG=INFO` says which links it found and took: read it once for a new cluster. `NCCL_SOCKET_IFNAME` and `GLOO_SOCKET_IFNAME` name the network device where a machine has several. `TORCH_DISTRIBUTED_DEBUG=DETAIL` compares the calls of the ranks, and costs time.
#
# ## Save on one layout, go on with another
#
# A run of months will not have the same machines for months. So what it leaves must not depend on how it was cut. The library's checkpoint knows each tensor by its name in the *plain* model; a rank writes the part that it holds, and with it where that part lies in the whole.

# %%
from course_lib import checkpoint
from course_lib.data import text_batch
from course_lib.layout import Layout
from course_lib.models.gpt import GPT
from course_lib.parallel.hybrid import HybridParallel

ROWS, CONTEXT = 12, 16


def start(layout, zero):
    torch.manual_seed(dist.get_rank())
    model = GPT(context=CONTEXT, width=32, num_layers=2).double()
    return HybridParallel(model, layout, torch.optim.AdamW, zero=zero, lr=3e-3)


# %%
def leg(layout, zero, folder, stop):
    """On a rank: go on from the newest checkpoint in the folder, if any, to step `stop`; save."""
    hybrid, saved = start(layout, zero), checkpoint.found(folder)
    first = checkpoint.load(hybrid, saved[-1])["step"] if saved else 0
    batches = [text_batch(step, ROWS, CONTEXT) for step in range(first, stop)]
    losses = [hybrid.step(*batch).item() for batch in batches]
    checkpoint.save(hybrid, folder, stop, {})
    return losses


# %% [markdown]
# The batch is a function of the step alone. So a run that goes on sees the very rows that come next. First one process, without a stop: the truth. Then three legs, each on another layout:

# %% jupyter={"source_hidden": true}
predict(
    "Four ranks, then three, then two; the optimizer is AdamW. How close will the curve be to that of one "
    "process?",
    {
        "To about 1 %": (
            "Each layout does add up in another order and round otherwise. In float64 that changes the "
            "last digits, and 24 steps do not make 1 % of that."
        ),
        "To the last digits": (
            "The checkpoint has weights, optimizer state and step, whatever the layout, and the step "
            "gives the batch. So only the order of additions differs."
        ),
        "Close, with jumps": (
            "The curve would jump if AdamW's moments or the place in the data were lost. The checkpoint "
            "has the moments, and the step gives the batch."
        ),
    },
    right=1,
)

# %%
folder = tempfile.TemporaryDirectory()
with tempfile.TemporaryDirectory() as alone:
    truth = launch(leg, 1, Layout(), 0, alone, 24)[0]
legs = {
    "dp 2 × tp 2, ZeRO-1": launch(leg, 4, Layout(dp=2, tp=2), 1, folder.name, 8)[0],
    "dp 3, ZeRO-3": launch(leg, 3, Layout(dp=3), 3, folder.name, 16)[0],
    "pp 2": launch(leg, 2, Layout(pp=2), 0, folder.name, 24)[0],
}
away = max(abs(a - b) for a, b in zip(sum(legs.values(), []), truth))
print(f"largest difference from one process: {away:.1e}")

# %%
axes = new_plot("step", "loss")
axes.plot(range(24), truth, color="0.6", linewidth=6, alpha=0.5, label="one process")
for number, (name, losses) in enumerate(legs.items()):
    axes.plot(range(8 * number, 8 * number + 8), losses, marker="os^"[number], label=name)
axes.legend();

# %% [markdown]
# To the last digits. (The optimizer's moments have moved too: AdamW without them would jump.) What does a rank read, when the cut is another? Take the weight at the top, 6 rows, cut over two ranks. With three, rank 1 needs some rows that rank 0 had, and some of rank 1's. In numbers, for a weight of 128 rows that three does not divide:

# %% tags=["nbval-check-output"]
from course_lib.layout import Shard, region

written = [region((128, 32), Shard(0), 2, rank)[0] for rank in range(2)]  # tp 2
wanted = [region((128, 32), Shard(0), 3, rank)[0] for rank in range(3)]  # dp 3, ZeRO-3
for reader, (a, b) in enumerate(wanted):
    for file, (c, d) in enumerate(written):
        first, stop = max(a, c), min(b, d)
        if first < stop:
            print(f"rank {reader} reads rows {first:2d} to {stop - 1:3d} from file {file}")

# %% [markdown]
# Where one range meets another, `max` of the starts to `min` of the ends, is what is read; all of resharding is this line, for every dim. Nobody ever builds the whole tensor, which for a large model no rank could hold. PyTorch's `torch.distributed.checkpoint` does it, and
# [`course_lib.checkpoint`](../course_lib/checkpoint/save_load.py) tells it where each part lies. Three more things are in there that cost real runs days:
#
# - It writes to another name and **renames** when all is there. A job that dies while it saves leaves the old checkpoint whole.
# - It saves the optimizer and the step. A run resumed without them goes on, a little worse.
# - What several ranks hold, one of them writes.

# %% [markdown]
# ## How often?
#
# Llama 3 was trained on 16,384 GPUs. In 54 days 419 interruptions were unexpected (Grattafiori et al. 2024, section 3.3.4). Each takes back all since the last checkpoint.

# %% tags=["nbval-check-output"]
days, failures, gpus = 54, 419, 16_384
mtbf = days * 24 * 3600 / failures  # mean time between failures, in seconds
print(f"the job:  a failure every {mtbf / 3600:.1f} hours")
print(f"each GPU: one in {gpus * mtbf / 3600 / 24 / 365:.1f} years")

# %% [markdown]
# Each part is reliable, and the job is not: $n$ parts fail $n$ times as often. A checkpoint of theirs is up to 4 GB for each GPU, and the storage takes 2 TB/s (section 3.3.1):

# %% tags=["nbval-check-output"]
save = gpus * 4e9 / 2e12  # at most
print(f"a checkpoint takes {save:.0f} s")

# %% [markdown]
# Play it: a month of work, failures at random, exponentially distributed. Saved often, it spends its time saving; seldom, it does things twice.


# %%
def lost(interval, save, mtbf, work=30 * 24 * 3600, seed=0):
    """Seconds lost for each second of work, in a run that needs `work` seconds."""
    draw, now, done = random.Random(seed), 0.0, 0.0
    failure = draw.expovariate(1 / mtbf)
    while done < work:
        end = now + interval + save
        if end <= failure:
            now, done = end, done + interval
        else:  # back to the last checkpoint
            now, failure = failure, failure + draw.expovariate(1 / mtbf)
    return now / done - 1


# %% jupyter={"source_hidden": true}
predict(
    "Saving takes 33 s, a failure comes every 3 hours. How often should the job save, to lose the least "
    "time?",
    {
        "Every minute": (
            "A failure then costs little, but saving takes 33 s for each 60 s of work: more than half as "
            "much time again."
        ),
        "Every quarter of an hour": (
            "Saving 33 s in 14 minutes costs 4 %, and a failure in 3 hours takes back 7 minutes, again 4 "
            "%. With both equal, the sum is least."
        ),
        "Every hour and a half": (
            "Saving then costs next to nothing, but a failure takes back 45 minutes on average, and one "
            "comes every 3 hours: about a quarter of the time."
        ),
    },
    right=1,
)

# %%
minutes = [1, 2, 4, 7, 10, 14, 20, 30, 45, 60, 90, 120]
axes = new_plot("minutes between checkpoints", "lost, per second of work")
played = [sum(lost(60 * t, save, mtbf, seed=s) for s in range(20)) / 20 for t in minutes]
axes.plot(minutes, played, "o", markevery=1, label="played, 20 months each")
formula = [save / (60 * t) + 60 * t / 2 / mtbf for t in minutes]
axes.plot(minutes, formula, marker="", label="δ/τ + τ/2M")
axes.set_xscale("log")
axes.set_xticks([1, 4, 14, 60], ["1", "4", "14", "60"])
axes.legend();

# %% [markdown]
# With $\delta$ the time of a checkpoint, $\tau$ of work between two, $M$ between failures: $\delta$ is paid once in each $\tau$, and a failure costs half a $\tau$ on average. For each second of work,
#
# $$ \text{lost} \;\approx\; \frac{\delta}{\tau} + \frac{\tau}{2M}, \qquad\text{least at}\qquad \tau = \sqrt{2\,\delta M}. $$
#
# That is Young's formula of 1974. It holds while $\delta \ll \tau \ll M$; to the right the played points lie higher, since what is done again can be hit again.

# %% tags=["nbval-check-output"]
best = (2 * save * mtbf) ** 0.5
print(f"every {best / 60:.0f} minutes; lost {save / best + best / 2 / mtbf:.1%}")
for n in (1024, 131_072):
    m = mtbf * gpus / n
    print(f"{n:7,} GPUs, the same save time: lost {(2 * save / m) ** 0.5:.1%}")

# %% [markdown]
# Plus, for each failure, the time until somebody notices and all ranks are running again. What is lost grows with $\sqrt{n}$, so larger jobs save faster: into the memory of a neighbour first, and to the disk while training goes on.

# %% [markdown]
# ## Kill a rank
#
# Now it happens. Rank 2 of 4 gets the signal that the system sends when a machine has run out of memory. The job saves every 4 steps, and rank 2 dies after ten.


# %%
def fragile(layout, folder, stop, dies=()):
    """On a rank: as `leg`, with a checkpoint every 4 steps. dies: a rank, in which step."""
    hybrid, saved = start(layout, 0), checkpoint.found(folder)
    first = checkpoint.load(hybrid, saved[-1])["step"] if saved else 0
    losses = []
    for step in range(first, stop):
        batch = text_batch(step, ROWS, CONTEXT)
        losses.append(hybrid.step(*batch).item())
        if (step + 1) % 4 == 0:
            checkpoint.save(hybrid, folder, step + 1, {})
        if (dist.get_rank(), step) == dies:
            os.kill(os.getpid(), signal.SIGKILL)
    return first, losses


# %% jupyter={"source_hidden": true}
predict(
    "Rank 2 of four is killed in the middle of training. What do the other three see?",
    {
        "Nothing: they go on with three": (
            "They would have to know that it is gone. A collective waits for all ranks of its group, and "
            "with one missing it is never complete."
        ),
        "A message that rank 2 was killed": (
            "You see such a message: it comes from the launcher, which watches the processes. The ranks "
            "only have connections to each other."
        ),
        "A broken connection": (
            "Nobody tells them. The system closes the connections of a process that ends, and the next "
            "collective that needs rank 2 fails."
        ),
    },
    right=2,
)

# %% tags=["raises-exception"]
crash = tempfile.TemporaryDirectory()
launch(fragile, 4, Layout(dp=2, tp=2), crash.name, 12, (2, 9))

# %% [markdown]
# Nobody told them. Their connection broke, in the next collective that needed rank 2; and between machines, if a machine has no power left to close its connections, not even that: they wait until a timeout. It is the *launcher* that sees a process end. On a cluster that is torchrun. It stops the rest, since a collective with
# a rank missing can never be completed, and with `--max-restarts=3` it lets all meet again and starts the script anew, in new processes, up to three times. **torchrun saves nothing.** The script has to begin, each time, from the newest checkpoint. Ours does. Say one machine is lost for good, and three ranks are left:

# %%
first, rest = launch(fragile, 3, Layout(dp=3), crash.name, 12)[0]
print(f"went on after {first} steps: {10 - first} of 10 were done for nothing")
away = max(abs(a - b) for a, b in zip(rest, truth[first:]))
print(f"largest difference from one process: {away:.1e}")

# %% [markdown]
# Try it for yourself, in a terminal: start this, wait for the first checkpoint, end one of its two Python processes by `kill -9`, and watch.
#
# ```sh
# torchrun --standalone --nproc-per-node=2 --max-restarts=1 -m course_lib.train --dp 2 --checkpoint runs/a --every 20 --resume
# ```

# %% [markdown]
# ## A museum of faults
#
# A killed rank is a loud fault. The bad ones are quiet. Each of these was found in a real project, or one much like it; the last column leads there. The library has them all in [one file](../course_lib/museum.py): a small training job in which exactly one thing can be wrong.

# %%
from IPython.display import Markdown

from course_lib.faults.museum import FAULTS, TENSOR, train

rows = ["| fault | what is wrong | found |", "|:---|:---|:---|"]
for name, fault in FAULTS.items():
    project = "/".join(fault.found.split("/")[3:5])
    rows.append(f"| {name} | {fault.what} | [{project}]({fault.found}) |")
Markdown("\n".join(rows))

# %% [markdown]
# The job: two copies of a model (dp 2), each cut over two ranks (tp 2), with sequence parallel; three micro-batches a step. Five runs of it, one healthy:

# %%
seed, m, max_norm, steps = 4, 3, None, 20
names = ["mean of means", "sum for mean", "", "other order", "norms drift"]
runs = {name: launch(train, 4, TENSOR, name, seed, m, max_norm, steps) for name in names}
axes = new_plot("step", "loss of copy 0")
for style, run in zip(["-", "--", ":", "-.", (0, (4, 1, 1, 1))], runs.values()):
    axes.plot(run[0]["losses"], linestyle=style, marker="")
axes.set_xticks(range(0, 20, 5));

# %% jupyter={"source_hidden": true}
predict(
    "Five runs of one job, and only one is right. Which of the curves is it?",
    {
        "The lowest": (
            "It falls fastest because gradients are added and not divided, as with a larger learning "
            "rate. A loss that falls faster is no proof."
        ),
        "It cannot be said from this": (
            "All five fall, and a curve has no line for what it should have been. Tensors, calls and one "
            "process to compare with can tell."
        ),
        "The highest": (
            "The highest is a fault, too. A fault can slow training down or speed it up, so the place of "
            "a curve among others tells nothing."
        ),
    },
    right=1,
)

# %% [markdown]
# All five fall, and the lowest is a bug again (a sum of gradients is a larger learning rate, chapter 05). The curve of a loss has no line for what it should have been. So ask questions that have one right answer.

# %% [markdown]
# ### Do the ranks hold the same?
#
# Ranks that hold copies of one tensor must hold the same bits: they start from the same and add the same. `copies` gives each rank a letter, in a colour, for each tensor; equal letters are equal bits. First the healthy run:

# %%
from course_lib.faults.diagnosis import copies, difference

copies(rank["weights"] for rank in runs[""])

# %% [markdown]
# Read it by rows. `norm`, `bias` and the embedding `wte` are on all four ranks. `up` and `down` are cut in two by tensor parallel, so ranks 0 and 2 hold one half, 1 and 3 the other. Now an exhibit:

# %%
copies(rank["weights"] for rank in runs["norms drift"])

# %% [markdown]
# One tensor has drifted, by a little, between ranks 0 and 1, and equally between 2 and 3: *along tensor parallel*. Ranks 0 and 2, the two copies, still agree. So data parallel works, and something is missing inside a copy.
#
# ### Did they say the same?
#
# Two runs of the same job make the same calls. `difference` compares what was called, in which group, with how many bytes, in the last step:


# %%
def last_step(run):
    return run.trace.during("step", last=1)


difference(last_step(runs["norms drift"]), last_step(runs[""]))

# %% [markdown]
# There it is. 64 bytes are 8 float64, the width of the model: the gradient of the norm. With sequence parallelism (chapter 08) each rank normalises *its part of the sequence*, so its gradient is a part of the sum. The weights are not cut, so it is easy to think that nothing needs to be done. It is in the list of Megatron-LM's bugs, among others. And the run trained on,
# since at first all norms are nearly right.
#
# You do not have a healthy run to compare with? One process is one. So is the formula: chapters 05 to 10 say how many bytes each strategy sends.
#
# The step itself, as the healthy job took it:

# %%
last_step(runs[""])

# %% jupyter={"source_hidden": true}
predict(
    "In “other order” one copy averages its bias before its norm, the other copy the norm first. What "
    "will `copies` and `difference` show?",
    {
        "Copies that are equal, and no call missing": (
            "Both copies do average both tensors. But a collective has no name: the bias of one meets "
            "the norm of the other, and the copies step differently."
        ),
        "Copies that differ, and calls missing": (
            "Tensors that drift apart often come from a missing call, as in “norms drift”. Here both "
            "make the same calls, of the same sizes, in another order."
        ),
        "Copies that differ, and no call missing": (
            "A collective has no name: the first call of one copy meets the first of the other. The "
            "sizes agree, so bias and norm are mixed up."
        ),
    },
    right=2,
)

# %%
copies(rank["weights"] for rank in runs["other order"])

# %%
difference(last_step(runs["other order"]), last_step(runs[""]))

# %% [markdown]
# A collective has no name. The second call of one rank meets the second call of the other, and if the sizes agree, they are added up. Here the norm of one copy got the bias of the other: two tensors of *one shape* have drifted *between the copies*, and no call is missing. That is its signature. Sets and dictionaries that were filled in another order do this;
# with unequal sizes it would have stopped. (`launch` reports it where the two calls stand on different lines. Here both come from one line in a loop.)

# %% [markdown]
# ### Is the gradient as large as it should be?
#
# Some faults hit all ranks alike. Then all hold the same, and it is wrong. The norm of the gradient in the first step, before weights have parted, should be that of one process:

# %% tags=["nbval-check-output"]
for name in ("sum for mean", "mean of means"):
    ratio = runs[name][0]["norms"][0] / runs[""][0]["norms"][0]
    print(f"{name}: the first gradient is {ratio:.6f} times the healthy one")

# %% [markdown]
# Exactly 2, the number of copies: their gradients were added and not divided. If the loss of micro-batches is not divided by their number, it would be exactly 3, as there are 3 of them. Adam hides both, for it divides by the size of the gradient; so does clipping. Look at the norm that is logged *before* it.
#
# And a few per cent? That is not a factor that anybody forgot. Each micro-batch had its own mean, over the tokens that count in it, and then the mean of those was taken:
#
# $$ \frac1m \sum_{i=1}^m \frac1{n_i}\sum_{j=1}^{n_i} \ell_{ij} \;\ne\; \frac{\sum_i\sum_j \ell_{ij}}{\sum_i n_i} \quad\text{unless all } n_i \text{ are equal.} $$
#
# A token in a short text weighs more. Widely used frameworks did that until 2024, when somebody plotted both. To do it right, ranks have to know the number of all tokens *before* backward, and telling each other takes a call. Which one is missing, then?

# %%
difference(last_step(runs["mean of means"]), last_step(runs[""]))

# %% [markdown]
# One integer for each step.
#
# ### Those that stop
#
# Last, a loud one. All ranks add up one number, the norm of the gradient. Rank 0 keeps the log, so it alone asks for the loss too:


# %% tags=["raises-exception"]
def end_of_step():
    loss, norm = torch.ones(1), torch.ones(1)
    if dist.get_rank() == 0:
        dist.all_reduce(loss)  # for the log
    dist.all_reduce(norm)


launch(end_of_step, 4)

# %% [markdown]
# A collective has no name: rank 0's first call met the others' only one, so what it logged as the loss was a norm, and *its* norm never comes. In a training loop it would be the next step's, and everything after it is shifted by one. Under torchrun nobody says so; the job stands still, or trains on, wrongly.
#
# When it stands still, `py-spy dump --pid …` shows the line at which a rank is, and PyTorch's [flight recorder](https://docs.pytorch.org/tutorials/unstable/flight_recorder_tutorial.html) keeps the last collectives of each rank and writes them down when NCCL's watchdog strikes. The first on which two ranks differ is the place. It is much like the record that `launch` reads while your ranks run.
#
# ### A first hour with a run that is wrong
#
# | ask | with | if not |
# |---|---|---|
# | Do all ranks start from the same weights? | `copies` before step 1 | broadcast missing |
# | Do copies still hold the same after a step? | `copies` after it | along which axis do they differ, and which tensors? |
# | Are all calls there? | `difference`, or bytes by formula | group and bytes name the tensor |
# | Is the first gradient as in one process? | its norm, before clipping | a factor: which degree is it? Else: how is the loss weighted? |
# | Does each copy see other rows? | losses of the copies, rank by rank | equal to the last digit: equal rows |
# | Is the loss of step 0 that of one process? | the same weights, the same rows | forward is wrong, not backward |
#
# In float64, with a small model, two steps, plain SGD: then a difference of $10^{-10}$ is a fault and not noise, and you have it in a second. The exercise has runs in which you do not know what is wrong.

# %%
folder.cleanup()
crash.cleanup()

# %% [markdown]
# ## Where this ends
#
# - A machine that computes *wrong numbers*, without an error, is in none of these tables. Large runs meet some ("silent data corruption", six in those 54 days). Steps repeated on another machine find it.
# - One slow GPU slows all of them down, in every step; nothing is broken. A trace shows who waits for whom.
# - Going on with fewer copies changes the batch, unless each takes more rows.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In six lines
#
# - The function stays as it is. torchrun starts it on each node and tells each process who it is; they meet at a store.
# - Many messages in the critical path stay inside a node; few large ones go across.
# - A checkpoint that names where each part lies in the whole can be read by any layout.
# - Save every $\sqrt{2\delta M}$; $M$ shrinks with the number of machines.
# - A dead rank ends the job; what brings it back is a script that begins from the newest checkpoint.
# - Quiet faults show in the ranks' tensors, calls and gradient norms, not in the loss.
#
# | symbol | meaning |
# |---|---|
# | $\delta$, $\tau$ | the time of one checkpoint, of the work between two |
# | $M$ | the mean time between two failures of the job |
# | $m$, $n_i$ | micro-batches of a step, tokens that count in one of them |
#
# **To read**
#
# - Grattafiori et al. 2024, [*The Llama 3 Herd of Models*](https://arxiv.org/abs/2407.21783), section 3.3.4 and table 5: what breaks.
# - Young 1974, [*A First Order Approximation to the Optimum Checkpoint Interval*](https://doi.org/10.1145/361147.361115). Two pages.
# - PyTorch on [torchrun](https://docs.pytorch.org/docs/stable/elastic/run.html) and on [distributed checkpoints](https://docs.pytorch.org/docs/stable/distributed.checkpoint.html).
# - Any three of the museum's sources. Read how each was found.
#
# **Now you:** [the exercise](../exercises/13_beyond_one_machine.ipynb).

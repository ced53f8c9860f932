"""What training costs, in numbers: pure Python on frozen values, no process group and, but for `machine`, no tensor.

shapes.py         models as shapes: parameters and FLOPs of transformers and of ResNet-50
hardware.py       GPUs, nodes and networks as data; the roofline
operations.py     the operations of a layer: FLOPs and bytes of each, for any number of tokens
machine.py        the roofline of the machine at hand, measured
plan.py           how a model is to be trained: cut how, in what pieces, with what recomputation
memory.py         bytes on a GPU: the states by ZeRO stage, and the activations
links.py          the α–β model of a link, and which link two ranks of a cluster have
communication.py  bytes and seconds of collectives, on one link or inside and across nodes
block.py          one block on its tensor parallel ranks: what each holds, computes and sends
traffic.py        what a rank sends in each of its groups in one step
mesh.py           a mesh on its nodes: the groups of a rank, what it sends in each, what it holds
kernels.py        seconds of one kernel
step_time.py      seconds of one step, by what they are spent on
candidate.py      a plan with its schedule, weighed: memory, time, and what limits it
advice.py         what a plan needs beside what a GPU has, and which single changes would help
planner.py        every candidate that fits, searched for
ranking.py        what a search found, ranked, and why a plan is not the best
overview.py       a search at a glance: the best of each choice, and each in words
published.py      results from papers, with their sources
validate.py       each published result beside ours, a Row
report.py         those rows as a table: `course validate`
"""

"""Train the GPT of the course on real text, under any layout: `course train` here, the same arguments under torchrun elsewhere.

options.py      what can be asked for, and what cannot be: refused in a sentence before any process starts
loop.py         what each rank does: steps, checkpoints, resuming
progress.py     what the first rank prints: a line a second, the curve of the loss at the end
start.py        how the ranks come to be: launched from here, or started by torchrun
torchrun.py     what a rank does that torchrun started: join the others, say what failed

course train --dp 2 --tp 2 --steps 200 --checkpoint runs/first
torchrun --nnodes=2 --nproc-per-node=2 … -m course_lib.train --dp 2 --tp 2 --steps 200 --checkpoint runs/first
"""

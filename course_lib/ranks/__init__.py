"""How `launch` gets from one process to many and back, one file a step.

Starting and ending
    arguments.py    in the caller: refuses what cannot work, and collects what the ranks need to know
    client.py       in the caller: starts the fork server, asks it for ranks, hears when they exit
    server.py       the fork server: a process that has imported torch once and forks every rank from itself
    worker.py       in a rank: set up, join the process group, run the function, leave the result
    output.py       in the caller: what the ranks print, labelled, in the same order in every run
    failure.py      in the caller: which rank failed first, and where

Seeing what the ranks do
    ledger.py       shared memory: each rank writes what it is about to do, and when it is done
    operations.py   in a rank: what each operation is asked to do, and what the ranks must agree on
    hooks.py        in a rank: every operation of torch.distributed goes through here into the ledger
    dispatcher_hooks.py  in a rank: those that PyTorch issues below its Python functions (DTensor, DDP)
    call_sites.py   in a rank: the learner's line that an operation was called from
    spans.py        in a rank: names that the learner gives to parts of the work
    network.py      in a rank: emulated links
    ledger_reader.py  in the caller: the ledger, read while the ranks run
    tracing.py      in the caller: that record as a Trace

Explaining
    match.py        which calls of the ranks belong together, and whether they agree
    exclusive.py    whether two lines follow each other or are alternatives, to tell swapped calls from turns
    stall.py        proof that ranks can never go on
    explain.py      deadlocks and mismatches as text
    report.py       failures and timeouts as text
    text.py         words that both use

What is not seen: what a backend does inside one operation, or while it issues one that is awaited later; waits inside C++
(DistributedDataParallel's in backward, those of futures), in which a rank counts as computing, so that a deadlock there is
told at the timeout; and what does not go through torch.distributed. A rank with threads of its own is never said to be stuck:
another thread could be about to help.

Caller and ranks share one folder a run: the pickled function, the ledger, and for each rank the names that its records use, its
output, its stack (written by faulthandler when asked, or at a crash), and its result or its failure.
"""

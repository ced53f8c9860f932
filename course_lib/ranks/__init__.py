"""How `launch` gets from one process to many and back, one file a step.

    arguments.py  in the caller: refuses what cannot work, and collects what the ranks need to know
    client.py     in the caller: starts the fork server, asks it for ranks, hears when they exit
    server.py     the fork server: a process that has imported torch once and forks every rank from itself
    worker.py     in a rank: set up, join the process group, run the function, leave the result
    output.py     in the caller: what the ranks print, labelled, in the same order in every run
    failure.py    in the caller: which rank failed first, and where
    report.py     in the caller: that story as text, with the lines of the notebook cell

Caller and ranks share one folder a run: the pickled function, a `board` of one byte a rank (its state), and for each
rank its output, its stack (written by faulthandler when asked, or at a crash), and its result or its failure.
"""

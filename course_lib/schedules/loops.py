"""Schedules of one pattern: some forwards to warm up, then a forward and a backward in turn, then the backwards that are left.

They differ in how many forwards warm up, in how many chunks of the model a rank holds, and in when weight gradients are made.
Rank r holds the stages r, r + p, r + 2p …
"""

from course_lib.schedules.schedule import Action, Schedule


def relay(p: int) -> Schedule:
    """One micro-batch, handed on from rank to rank: one rank works, the others wait. The bubble is p − 1 of 1."""
    require_positive(p=p)
    return Schedule("relay", _pattern(p, 1, warm_up=lambda rank: 1))


def gpipe(p: int, m: int) -> Schedule:
    """All forwards, then all backwards: bubble (p−1)/m, and m micro-batches live at once. Huang et al. 2019, section 2.3."""
    require_positive(p=p, m=m)
    return Schedule("GPipe", _pattern(p, m, warm_up=lambda rank: m))


def one_f_one_b(p: int, m: int) -> Schedule:
    """A backward as soon as one can be: bubble (p−1)/m as in GPipe, but only p − r micro-batches live on rank r.

        p = 3, m = 4    warm up         a forward and a backward in turn      the backwards that are left
        rank 0          0F0 0F1         0F2 0B0 0F3 0B1                       0B2 0B3
        rank 1          1F0             1F1 1B0 1F2 1B1 1F3 1B2               1B3
        rank 2                          2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3

    Source: Narayanan et al. 2019, "PipeDream", section 3.2; with a flush, Narayanan et al. 2021, section 2.2.
    """
    require_positive(p=p, m=m)
    return Schedule("1F1B", _pattern(p, m, warm_up=lambda rank: p - 1 - rank))


def interleaved(p: int, m: int, v: int) -> Schedule:
    """1F1B with v chunks of the model on each rank: bubble (p−1)/(v·m), for v times the messages.

    Micro-batches go in rounds of about p: a rank does those of a round for its first chunk, then for the next.
    m must be a multiple of p, or at least split into m // p equal rounds, else ValueError. Narayanan et al. 2021, section 2.2.
    """
    require_positive(p=p, m=m, v=v)
    a_round = _round(p, m)
    first = (v - 1) * a_round
    return Schedule(f"interleaved 1F1B, v = {v}", _pattern(p, m, lambda rank: first + 2 * (p - 1 - rank), v, a_round))


def zb_h1(p: int, m: int) -> Schedule:
    """1F1B with the backward in two: other ranks wait for I only, and W fills what would be bubble. Memory as in 1F1B.

    Rank r leaves r weight gradients for the end. With F, I and W equally long the bubble is a third of 1F1B's.
    Source: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2.3.
    """
    require_positive(p=p, m=m)
    return Schedule("ZB-H1", _pattern(p, m, warm_up=lambda rank: p - 1 - rank, postponed=lambda rank: rank))


def _pattern(p, m, warm_up, v=1, a_round=None, postponed=None) -> tuple[tuple[Action, ...], ...]:
    """warm_up(rank): forwards before the first turn. postponed(rank): how many I a W lags behind; None leaves them together, B."""
    turns = _turns(m, v, a_round or m)
    ranks = []
    for rank in range(p):
        forwards = [(chunk * p + rank, i) for chunk, i in turns]
        # Backward goes through the chunks from the last to the first, in the same rounds.
        backwards = [((v - 1 - chunk) * p + rank, i) for chunk, i in turns]
        first = min(warm_up(rank), len(forwards))
        actions = [Action("F", *visit) for visit in forwards[:first]]
        for number, visit in enumerate(backwards):
            if first + number < len(forwards):
                actions.append(Action("F", *forwards[first + number]))
            actions.append(Action("B" if postponed is None else "I", *visit))
            if postponed is not None and number >= postponed(rank):
                actions.append(Action("W", *backwards[number - postponed(rank)]))
        if postponed is not None:
            left = max(0, len(backwards) - postponed(rank))
            actions += [Action("W", *visit) for visit in backwards[left:]]
        ranks.append(tuple(actions))
    return tuple(ranks)


def _turns(m: int, v: int, a_round: int) -> list[tuple[int, int]]:
    """(chunk, micro-batch): a round of micro-batches for chunk 0, the same for chunk 1, …, then the next round."""
    rounds = range(0, m, a_round)
    return [(chunk, i) for start in rounds for chunk in range(v) for i in range(start, start + a_round)]


def _round(p: int, m: int) -> int:
    rounds = max(1, m // p)
    if m % rounds:
        below = m // p * p
        raise ValueError(
            f"m = {m} micro-batches cannot go in {rounds} equal rounds of about p = {p}; {below} or {below + p} would do."
        )
    return m // rounds


def require_positive(**sizes: int) -> None:
    """Raise ValueError for what can be no number of ranks, micro-batches or chunks."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            what = {"p": "ranks", "m": "micro-batches", "v": "chunks of each rank"}[name]
            raise ValueError(f"{name} is the number of {what}, a whole number from 1 up, not {value!r}.")

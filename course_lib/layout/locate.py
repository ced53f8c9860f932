"""Find where each rank's real tensor lies inside the whole one, by its values."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from textwrap import wrap
from typing import Any

from course_lib.layout import Region, Shard, num_elements, region
from course_lib.layout.ownership import (
    MAX_WORLD_SIZE,
    Ownership,
    TensorInfo,
    describe,
    named_tensors,
    shape_text,
    title_of,
    total_text,
)

_PROBES = 64  # values compared one by one before whole regions are


def located(run: Any, whole: Any, name: str = "tensor") -> Ownership:
    """Which region of `whole` each rank of `run` really holds.

    run: a Run, or one result a rank; each a tensor, or a dict of name to tensor. whole: a tensor, a dict, or a model.
    Values are compared exactly. Raises TypeError for a rank that returned no tensor, ValueError for a name that whole lacks.
    """
    results = list(getattr(run, "results", run))
    if not 1 <= len(results) <= MAX_WORLD_SIZE:
        raise ValueError(
            f"sharding() draws 1 to {MAX_WORLD_SIZE} ranks and this run has {len(results)}: draw some of them."
        )
    is_model = hasattr(whole, "named_parameters")
    wholes = dict(whole.state_dict()) if is_model else dict(named_tensors(whole, name))
    tensors = tuple(describe(label, tensor) for label, tensor in wholes.items())
    held = [_named(result, rank, wholes, name) for rank, result in enumerate(results)]
    regions, nbytes, notes = [], [], []
    for info, tensor in zip(tensors, wholes.values(), strict=True):
        parts = [rank_tensors.get(info.name) for rank_tensors in held]
        row = tuple(_find_for_rank(part, tensor, rank, len(parts)) for rank, part in enumerate(parts))
        regions.append(row)
        nbytes.append(tuple(0 if part is None else part.numel() * part.element_size() for part in parts))
        notes.append(_verdict(info, tensor, parts, row))
    totals = total_text(tensors, tuple(nbytes))
    lines = [f"Read from the {len(results)} ranks' own tensors: {totals}.", *_gather(tensors, notes)]
    kind = type(whole).__name__ if is_model else None
    wrapped = tuple(line for note in lines for line in wrap(note, 118))
    return Ownership(title_of(kind, tensors), tensors, tuple(regions), tuple(nbytes), wrapped)


def find(part: Any, whole: Any, expected: Region | None = None) -> Region | None:
    """The region of `whole` whose values are those of `part`; None when there is none.

    expected: tried first, so that a tensor whose values repeat is found where it ought to be.
    """
    if part.dim() != whole.dim() or part.dtype != whole.dtype:
        return None
    starts = [n - m + 1 for n, m in zip(whole.shape, part.shape, strict=True)]
    if any(count < 1 for count in starts):
        return None
    if expected is not None and _equal(whole[_slices(expected)], part):
        return expected
    if not part.numel():
        return tuple((0, m) for m in part.shape)
    candidates = whole.new_ones(starts, dtype=bool).nonzero() if starts else None
    if candidates is None:
        return () if _equal(whole, part) else None
    flat = part.reshape(-1)
    step = max(1, flat.numel() // _PROBES)
    for probe in range(0, flat.numel(), step):
        offset = _unravel(probe, part.shape)
        at = whole[tuple(candidates[:, dim] + offset[dim] for dim in range(part.dim()))]
        candidates = candidates[_same(at, flat[probe])]
        if len(candidates) <= 1:
            break
    for start in candidates.tolist():
        there = tuple((s, s + m) for s, m in zip(start, part.shape, strict=True))
        if _equal(whole[_slices(there)], part):
            return there
    return None


def _find_for_rank(part: Any, whole: Any, rank: int, world_size: int) -> Region | None:
    if part is None:
        return None
    plans = [region(whole.shape, Shard(dim), world_size, rank) for dim in range(whole.dim())]
    fitting = [plan for plan in plans if tuple(stop - start for start, stop in plan) == tuple(part.shape)]
    return next((plan for plan in fitting if find(part, whole, plan) == plan), None) or find(part, whole)


def _named(result: Any, rank: int, wholes: dict[str, Any], name: str) -> dict[str, Any]:
    tensors = dict(result) if isinstance(result, Mapping) else {name: result}
    for label, tensor in tensors.items():
        if not hasattr(tensor, "element_size"):
            raise TypeError(
                f"rank {rank} returned {tensor!r:.60} and not a tensor: return the rank's tensor, or a dict of them."
            )
        if label not in wholes:
            raise ValueError(
                f"rank {rank} holds {label!r}, which whole lacks (it has {', '.join(wholes)}): use the same names."
            )
    return tensors


def _verdict(info: TensorInfo, whole: Any, parts: Sequence[Any], row: tuple[Region | None, ...]) -> str:
    """What the ranks hold of one tensor, in a sentence or a few."""
    full = tuple((0, n) for n in info.shape)
    if all(part == full for part in row):
        return "Replicated: every rank holds all of it."
    strangers = [rank for rank, part in enumerate(row) if part is None]
    if strangers:
        if len(strangers) == len(row) and _is_partial(parts, whole):
            return "Partial sums: each rank holds the full shape, and only their sum is the whole."
        return " ".join(_why_not(rank, parts[rank], whole) for rank in strangers)
    counts = whole.new_zeros(whole.shape, dtype=int)
    for part in row:
        counts[_slices(part)] += 1
    sentences = []
    for a, b in combinations(range(len(row)), 2):
        common = tuple((max(r[0], s[0]), min(r[1], s[1])) for r, s in zip(row[a], row[b], strict=True))
        if all(start < stop for start, stop in common):
            sentences.append(f"Ranks {a} and {b} overlap: both hold {num_elements(common)} of its values.")
    unowned = int((counts == 0).sum())
    if unowned:
        first = (counts == 0).nonzero()[0].tolist()
        sentences.append(f"{unowned} of {prod(info.shape)} values are on no rank, the first at {first}.")
    return " ".join(sentences) or f"Sharded on {_split_dims(row, full)}: each value is on exactly one rank."


def _split_dims(row: tuple[Region, ...], full: Region) -> str:
    dims = [str(d) for d, whole in enumerate(full) if any(part[d] != whole for part in row)]
    return ("dim " if len(dims) == 1 else "dims ") + " and ".join(dims)


def _why_not(rank: int, part: Any, whole: Any) -> str:
    if part is None:
        return f"Rank {rank} returned none of it."
    shape, dtype = tuple(part.shape), str(part.dtype).removeprefix("torch.")
    start = f"Rank {rank}'s {shape_text(shape)} tensor is no shard of it:"
    if part.dtype != whole.dtype:
        return f"{start} it is {dtype}, not {str(whole.dtype).removeprefix('torch.')}."
    if part.dim() != whole.dim():
        hint = " (for flat pieces pass whole=w.flatten())" if part.dim() == 1 else ""
        return f"{start} it has {part.dim()} dims, not {whole.dim()}{hint}."
    if any(m > n for m, n in zip(part.shape, whole.shape, strict=True)):
        return f"{start} it is larger than {shape_text(tuple(whole.shape))}."
    return f"{start} its values stand nowhere in whole."


def _gather(tensors: tuple[TensorInfo, ...], notes: list[str]) -> list[str]:
    """One tensor's verdict as it is; a model's counted, and the first few odd ones by name."""
    if len(tensors) == 1:
        return notes
    usual = [note for note in dict.fromkeys(notes) if note.startswith(("Replicated", "Sharded", "Partial"))]
    lines = [f"{notes.count(note)} of {len(notes)} tensors: {note[0].lower()}{note[1:]}" for note in usual]
    odd = [f"{info.name}: {note}" for info, note in zip(tensors, notes, strict=True) if note not in usual]
    return lines + odd[:4] + ([f"… and {len(odd) - 4} more such tensors."] if len(odd) > 4 else [])


def _is_partial(parts: Sequence[Any], whole: Any) -> bool:
    if any(part is None or part.shape != whole.shape or part.dtype != whole.dtype for part in parts):
        return False
    return bool(((sum(parts) - whole).abs() <= 1e-5 * whole.abs().max()).all())  # sums round; shards must not


def _same(a: Any, b: Any) -> Any:
    return a.isclose(b, rtol=0, atol=0, equal_nan=True)  # exact, and NaN is the same as NaN


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool(_same(a, b).all())


def _slices(part: Region) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in part)


def _unravel(flat: int, shape: Sequence[int]) -> list[int]:
    index = []
    for length in reversed(shape):
        flat, i = divmod(flat, length)
        index.append(i)
    return index[::-1]

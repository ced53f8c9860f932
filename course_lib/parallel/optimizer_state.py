"""An optimizer's state, put together from the pieces that ranks hold of it, and cut into them again."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from course_lib.parallel.sharded_bucket import Piece

State = dict[int, dict[str, Any]]  # by the parameter's number, as in torch's state_dict()["state"]


def whole_state(
    pieces: Sequence[Piece],
    state: Mapping[torch.Tensor, dict[str, Any]],
    parameters: Sequence[nn.Parameter],
    group: dist.ProcessGroup | None,
) -> State:
    """The state of whole parameters, on every rank, from each rank's state of its pieces' values.

    Communication: an all-gather of objects; every rank gets all of the state, 2Ψ elements for Adam.
    """
    number = {p: i for i, p in enumerate(parameters)}
    mine = [
        (number[piece.parameter], piece.start, piece.stop, state[piece.values])
        for piece in pieces
        if piece.values in state
    ]
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyone, mine, group=group)
    whole: State = {}
    for i, start, stop, values in sorted(chain(*everyone), key=lambda entry: entry[:2]):
        entry = whole.setdefault(i, {})
        for name, value in values.items():
            if torch.is_tensor(value) and value.shape == (stop - start,):  # a number for each element
                entry.setdefault(name, value.new_empty(parameters[i].shape))
                entry[name].view(-1)[start:stop] = value
            else:  # one for the parameter, such as the number of steps
                entry[name] = value
    return whole


def cut_state(whole: State, pieces: Sequence[Piece], parameters: Sequence[nn.Parameter]) -> State:
    """The state of this rank's pieces, by their number, out of that of whole parameters. Nothing is sent or shared."""
    number = {p: i for i, p in enumerate(parameters)}

    def cut(name: str, value: Any, piece: Piece) -> Any:
        if name != "step" and torch.is_tensor(value) and value.shape == piece.parameter.shape:
            return value.reshape(-1)[piece.start : piece.stop].clone()
        return deepcopy(value)

    return {
        i: {name: cut(name, value, piece) for name, value in whole[number[piece.parameter]].items()}
        for i, piece in enumerate(pieces)
        if number[piece.parameter] in whole
    }

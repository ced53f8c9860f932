"""Boxes of a tensor, one range along each dim, as torch.distributed.checkpoint writes and reads them."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from course_lib.layout import Region


def boxes_of_flat(shape: Sequence[int], start: int, stop: int) -> list[Region]:
    """Elements start to stop of a tensor, counted row by row, as boxes in the same order; at most 2n − 1 for n dims.

    4 × 4, elements 2 to 13     . . a a     a   a part of a row
                                b b b b     b   whole rows
                                b b b b
                                c . . .     c   a part of a row
    """
    if start >= stop:
        return []
    if len(shape) < 2:
        return [((start, stop),)] if shape else [()]
    row, found = prod(shape[1:]), []
    while start < stop:
        at, within = divmod(start, row)
        rows = (stop - start) // row
        if within == 0 and rows:
            found.append(((at, at + rows), *((0, length) for length in shape[1:])))
            start += rows * row
        else:
            end = min(stop, (at + 1) * row)
            inside = boxes_of_flat(shape[1:], within, within + end - start)
            found += [((at, at + 1), *box) for box in inside]
            start = end
    return found


class Boxes:
    """A tensor of `shape` of which this rank holds some boxes; their values lie one after the other in `tensor`."""

    def __init__(self, shape: Sequence[int], boxes: Sequence[Region], tensor: torch.Tensor):
        self.shape = torch.Size(shape)
        self.parts: dict[torch.Size, torch.Tensor] = {}  # by where in the whole they begin: views of `tensor`
        flat, at = tensor.view(-1), 0
        for box in boxes:
            sizes = [stop - start for start, stop in box]
            self.parts[torch.Size([start for start, _ in box])] = flat[at : at + prod(sizes)].view(sizes)
            at += prod(sizes)

    def chunks(self) -> list[ChunkStorageMetadata]:
        """Where each box begins in the whole, and its lengths."""
        return [ChunkStorageMetadata(offsets, part.size()) for offsets, part in self.parts.items()]


class BoxesSavePlanner(DefaultSavePlanner):
    """What torch.distributed.checkpoint asks when it writes a state of Boxes. What several ranks hold, one of them writes."""

    def __init__(self):
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> SavePlan:
        """One item a box."""
        return SavePlan([
            WriteItem(
                MetadataIndex(name, chunk.offsets),
                WriteItemType.SHARD,
                tensor_data=TensorWriteData(chunk, TensorProperties(boxes.parts[chunk.offsets].dtype), boxes.shape),
            )
            for name, boxes in self.state_dict.items()
            for chunk in boxes.chunks()
        ])  # fmt: skip

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The values of one box."""
        return self.state_dict[index.fqn].parts[index.offset]


class BoxesLoadPlanner(DefaultLoadPlanner):
    """The same for reading: for each box wanted, the parts of boxes in the files that meet it."""

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Called first."""
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def create_local_plan(self) -> LoadPlan:
        """One item for each pair of boxes that meet. Raises KeyError for what the checkpoint does not have."""
        there = self.metadata.state_dict_metadata
        return LoadPlan([
            item
            for name, boxes in self.state_dict.items()
            for item in create_read_items_for_chunk_list(name, there[name], boxes.chunks())
        ])  # fmt: skip

    def lookup_tensor(self, index: MetadataIndex) -> torch.Tensor:
        """The values of one box."""
        return self.state_dict[index.fqn].parts[index.offset]

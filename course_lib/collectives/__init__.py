"""The collectives of torch.distributed, built from isend and irecv, to be read.

The calls are the same: write `collectives.` for `dist.`.

n ranks, V bytes in the tensor that each rank puts in (for all_gather, scatter, gather: one part).

    call                 how                steps        messages a rank     bytes sent a rank
    broadcast            tree (binomial)    ⌈log2 n⌉     src ⌈log2 n⌉        V each; n−1 messages in all
                         flat               1            src n−1, others 0   (n−1)·V
    reduce               tree               ⌈log2 n⌉     1, dst 0            V
    scatter              flat               1            src n−1, others 0   (n−1)·V
    gather               flat               1            1, dst 0            V
    all_gather           ring               n−1          n−1                 (n−1)·V
    reduce_scatter       ring               n−1          n−1                 (n−1)/n · V
    all_reduce           ring               2(n−1)       2(n−1)              2(n−1)/n · V
                         doubling           log2 n       log2 n              log2(n)·V      (n a power of two)
                         reduce_broadcast   2⌈log2 n⌉    1 + its share       V a message; 2(n−1) in all
    all_to_all           pairwise           1            n−1                 (n−1)/n · V

Ranks called src and dst count in the whole world, as in torch.distributed.

Any length, empty and 0-dim tensors included; any strides; SUM, PRODUCT, MIN, MAX, AVG. Everything that only
moves data takes every dtype; a reduction takes those that torch can add on a CPU. Where nothing waits for
anything else (flat broadcast, scatter, gather, all_to_all) async_op=True returns a handle with wait();
elsewhere there is no async_op. Written for gloo. Under NCCL the messages of one step would have to be posted
together, with dist.batch_isend_irecv.

The autograd pairs of tensor parallelism are in `course_lib.collectives.autograd`; torch.distributed's own all-gather and
reduce-scatter along any dim, and without waiting, in `course_lib.collectives.along`.
"""

from course_lib.collectives.pairwise import all_to_all
from course_lib.collectives.rings import all_gather, all_reduce, reduce_scatter
from course_lib.collectives.rooted import broadcast, gather, reduce, scatter

__all__ = ["all_gather", "all_reduce", "all_to_all", "broadcast", "gather", "reduce", "reduce_scatter", "scatter"]

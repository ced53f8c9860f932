"""Strategies: a plain module and a process group in, a parallel module out.

Data parallel: the whole model on every rank
    data.py             DataParallel, one message a gradient; BucketedDataParallel, overlapped with backward
    buckets.py          which parameters travel together
    broadcast_model.py  rank 0's values on every rank; models that differ are refused

For both kinds of sharding
    clip.py             clipping by the norm of the whole gradient

Sharded optimizer (ZeRO-1, ZeRO-2): the state, then the gradients too, shared out
    zero.py             ShardedOptimizer, around an ordinary optimizer
    sharded_bucket.py   a flat tensor of parameters, cut into a chunk a rank: what is sent and updated
    optimizer_state.py  from pieces to a whole state dict and back

Fully sharded (ZeRO-3): the parameters shared out as well
    fsdp_by_hand.py     gather, use, free, reduce-scatter: a chain of layers, without hooks
    sharded.py          FullyShardedDataParallel: what happens before and after each unit, forward and backward
    fsdp_units.py       what a unit is, and its parameters while they are whole
    fsdp_collectives.py the all-gather and the reduce-scatter of some of its parameters

Tensor parallel: every weight matrix shared out, and each rank computes with its slice
    tensor.py           ColumnParallelLinear and RowParallelLinear, with or without a sharded sequence
    vocabulary.py       the embedding and the loss of a vocabulary that is shared out
    tensor_model.py     tensor_parallelize: a whole GPT or BERT, and its plain state dict back; sequence parallel

Context parallel: the sequence shared out, the weights whole
    context.py          splitting a sequence; attention by all-to-all; context_parallelize
    ring_attention.py   attention with keys and values that go round

Pipeline parallel: every rank has some layers, and micro-batches go through all ranks
    pipeline.py         run_pipeline: carries out any legal schedule of course_lib.schedules
    stage_messages.py   what goes between stages, and when it is awaited
    stages.py           a model cut into stages; backward in two parts

Hybrid parallel: all of them at once, each over its axis of a mesh
    hybrid.py           HybridParallel: one step of a GPT under a Layout
"""

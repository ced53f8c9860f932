"""PyTorch's own schedules as ours: its generators run on objects that were never given a stage or a process group."""

from torch.distributed.pipelining import schedules as theirs

from course_lib.schedules import Action, Schedule

KINDS = {"FORWARD": "F", "FULL_BACKWARD": "B", "BACKWARD_INPUT": "I", "BACKWARD_WEIGHT": "W"}


def bare(cls, **attributes):
    """An instance with just what its generator reads."""
    made = object.__new__(cls)
    made.__dict__.update(attributes)
    return made


def gpipe(p, m):
    order = bare(theirs.ScheduleGPipe, _num_stages=p, _n_microbatches=m)._get_pipeline_order()
    return ours("GPipe", order.values())


def one_f_one_b(p, m):
    order = bare(theirs.Schedule1F1B, _num_stages=p, _n_microbatches=m)._get_pipeline_order()
    return ours("1F1B", order.values())


def interleaved(p, m, v, cls=theirs.ScheduleInterleaved1F1B):
    a_round = m // max(1, m // p)
    made = bare(cls, n_local_stages=v, pp_group_size=p, microbatches_per_round=a_round, _n_microbatches=m)
    return ours("interleaved", map(made._calculate_single_rank_operations, range(p)))


def zero_bubble(p, m):
    return interleaved(p, m, 1, theirs.ScheduleInterleavedZeroBubble)


def vee(cls, p, m):
    made = bare(cls, pp_group_size=p, num_stages=2 * p, _num_stages=2 * p, _n_microbatches=m)
    return ours(cls.__name__, map(made._calculate_single_rank_operations, range(p)))


def zb_v(p, m):
    return vee(theirs.ScheduleZBVZeroBubble, p, m)


def dualpipe_v(p, m):
    return vee(theirs.ScheduleDualPipeV, p, m)


def ours(name, ranks):
    """Waits left out, a forward and a backward that run as one taken one after the other, and no reduction of gradients."""
    return Schedule(name, tuple(tuple(flat(rank)) for rank in ranks))


def flat(actions):
    for action in actions:
        if action is None or action.computation_type.name not in (*KINDS, "OVERLAP_F_B"):
            continue
        if action.sub_actions:
            yield from flat(action.sub_actions)
        else:
            yield Action(KINDS[action.computation_type.name], action.stage_index, action.microbatch_index)

"""Pipeline schedules as plain data: the same list of actions is drawn, simulated and run.

    schedule.py   Action and Schedule, and a schedule from text
    loops.py      relay, gpipe, one_f_one_b, interleaved, zb_h1: warm up, in turn, drain
    vee.py        zb_v and dualpipe_v: two chunks on each rank, down and up
    known.py      those that have a name, with the bubble that their papers promise; how another one compares with them
    order.py      going through a schedule in an order that can be carried out; check
    simulation.py the same with a clock: when each action begins and ends, what ranks hold, why they wait
    moves.py      a collective as data in the same way: in which step which chunk goes from where to where

p ranks, m micro-batches, v chunks of the model on each rank.
"""

from course_lib.schedules.loops import gpipe, interleaved, one_f_one_b, relay, zb_h1
from course_lib.schedules.order import Problem, check, executable
from course_lib.schedules.schedule import Action, Schedule, parse
from course_lib.schedules.vee import dualpipe_v, zb_v

__all__ = [
    "Action",
    "Problem",
    "Schedule",
    "check",
    "dualpipe_v",
    "executable",
    "gpipe",
    "interleaved",
    "one_f_one_b",
    "parse",
    "relay",
    "zb_h1",
    "zb_v",
]

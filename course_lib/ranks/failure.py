"""Which rank failed first, and what the others were doing: facts from a run's folder, no text yet."""

import pickle
import re
from dataclasses import dataclass

from course_lib.ranks.worker import Spec

Frame = tuple[str, int, str]  # file name, line number, function name; a stack has its outermost frame first

# What a rank sees when another one has gone: never the cause, always a consequence of it.
_CONSEQUENCE = re.compile(
    r"connection closed by peer|connection reset by peer|connection refused|broken pipe|socket (is )?closed"
    r"|connection was (likely )?closed|remote process exited|ncclRemoteError|failed to connect|"
    r"connect.{0,40}(timed out|timeout)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended.

    how: "returned", "raised", "killed" (by a signal not ours), "left" (exited without returning), or "stopped" (by
    us, while it was still running). `time` is on the machine's monotonic clock, None if stopped.
    """

    rank: int
    how: str
    time: float | None = None
    status: int | None = None  # exit status; minus the signal's number if killed
    type: str = ""
    message: str = ""
    text: str = ""  # the rank's own traceback
    stack: tuple[Frame, ...] = ()
    exception: bytes | None = None  # pickled

    @property
    def failed(self) -> bool:
        return self.how in ("raised", "killed", "left")

    @property
    def is_consequence(self) -> bool:
        """Whether this is only what a rank saw of another one's end, as torch.distributed words it."""
        from_torch = self.type == "RuntimeError" or self.type.startswith("Dist")
        return self.how == "raised" and from_torch and bool(_CONSEQUENCE.search(self.message))

    def is_before(self, moment: float) -> bool:
        """Whether this is a failure of its own, not a consequence, and was there before `moment`."""
        return self.failed and not self.is_consequence and self.time is not None and self.time < moment


def collect(spec: Spec, exits: dict[int, tuple[int, float]], stopped: set[int], done: set[int]) -> list[RankEnd]:
    """How every rank ended. exits: rank -> (status, time); stopped: those we killed; done: those that said they were done."""
    ends = []
    for rank in range(spec.world_size):
        stack = parse_stack(_read(spec, "stack", rank))
        status, time = exits.get(rank, (None, None))
        failure = spec.file("failure", rank)
        if failure.exists():
            record = pickle.loads(failure.read_bytes())
            record["stack"] = tuple(record.pop("frames"))
            ends.append(RankEnd(rank, "raised", status=status, **record))
        elif (status == 0 or rank in done) and spec.file("result", rank).exists():
            ends.append(RankEnd(rank, "returned", time, status))
        elif rank in stopped or status is None:
            ends.append(RankEnd(rank, "stopped", stack=stack))
        else:
            how = "killed" if status < 0 else "left"
            ends.append(RankEnd(rank, how, time, status, stack=stack, text=_read(spec, "err", rank)[-2000:]))
    return ends


def first_cause(ends: list[RankEnd]) -> RankEnd | None:
    """The failure that came first, leaving out what ranks saw only because another one was gone; None if all is well.

    A rank writes down its failure before it closes its connections, so every consequence is later than its cause; only a
    killed or departed rank may be noticed by its neighbours before we are told. Hence consequences come last.
    """
    failed = [end for end in ends if end.failed]
    return min(failed, key=lambda end: (end.is_consequence, end.time), default=None)


def parse_stack(dump: str) -> tuple[Frame, ...]:
    """The main thread's frames from the last faulthandler dump in a file, outermost first."""
    threads = re.split(r"\n(?=(?:Current thread|Thread) 0x|Stack \(most recent)", "\n" + dump)
    for thread in reversed(threads):
        frames = re.findall(r'^ +File "(.+)", line (\d+) in (.+)$', thread, re.MULTILINE)
        if any(name == "run_rank" for _, _, name in frames):
            return tuple((file, int(line), name) for file, line, name in reversed(frames))
    return ()


def _read(spec: Spec, kind: str, rank: int) -> str:
    try:
        return spec.file(kind, rank).read_text(errors="replace")
    except FileNotFoundError:
        return ""

"""What the ranks print, as the caller shows it: rank 0 while it runs, the others after it, each line with its rank."""

import os
import sys
import time

from course_lib.ranks.worker import Spec

SHOWN_BYTES = 64 * 1024  # of one rank's stream; the rest stays in a file that is named


class Output:
    """Follows the output files of a run. `follow` often, `finish` once."""

    def __init__(self, spec: Spec, show_waiting: bool):
        self.spec = spec
        self.offsets = {"out": 0, "err": 0}
        self.clipped = False  # True: a file holds more than was shown, so the folder must stay
        self.waiting = _WaitingLine(spec) if show_waiting else None

    def follow(self) -> None:
        """Show the whole lines that rank 0 has added."""
        for kind in self.offsets:
            self._show(0, kind, self.offsets, whole_lines=True)
        if self.waiting:
            self.waiting.update()

    def finish(self) -> None:
        """Show the rest of rank 0, then the other ranks in order."""
        if self.waiting:
            self.waiting.clear()
        for rank in range(self.spec.world_size):
            offsets = self.offsets if rank == 0 else {"out": 0, "err": 0}
            for kind in offsets:
                self._show(rank, kind, offsets, whole_lines=False)

    def _show(self, rank: int, kind: str, offsets: dict[str, int], whole_lines: bool) -> None:
        path = self.spec.file(kind, rank)
        offset = offsets[kind]
        if offset > SHOWN_BYTES:
            return
        try:
            size = path.stat().st_size
            if size <= offset:
                return
            with open(path, "rb") as file:
                file.seek(offset)
                data = file.read(SHOWN_BYTES - offset)
        except FileNotFoundError:
            return
        clip = size > SHOWN_BYTES and offset + len(data) == SHOWN_BYTES
        if clip or whole_lines:
            data = data[: data.rfind(b"\n") + 1]
        if not data and not clip:
            return
        offsets[kind] = SHOWN_BYTES + 1 if clip else offset + len(data)
        lines = data.decode(errors="replace").removesuffix("\n").split("\n")
        if clip:
            self.clipped = True
            lines.append(f"… more than {SHOWN_BYTES // 1024} KiB printed; all of it is in {path}")
        if self.waiting:
            self.waiting.clear()
        stream = sys.stdout if kind == "out" else sys.stderr
        stream.write("".join(f"[rank {rank}] {line}\n" for line in lines))
        stream.flush()


class _WaitingLine:
    """One line that says that ranks are at work, rewritten in place while they print nothing, and removed."""

    def __init__(self, spec: Spec):
        self.spec = spec
        self.start = self.quiet_since = time.monotonic()
        self.text = ""

    def update(self) -> None:
        now = time.monotonic()
        if now - self.quiet_since < 2:
            return
        ranks = "1 rank" if self.spec.world_size == 1 else f"{self.spec.world_size} ranks"
        text = f"{ranks} running: {now - self.start:.0f} s of at most {self.spec.timeout_s:g} s"
        if text != self.text:
            self.text = text
            sys.stdout.write("\r" + text)
            sys.stdout.flush()

    def clear(self) -> None:
        self.quiet_since = time.monotonic()
        if self.text:
            sys.stdout.write("\r" + " " * len(self.text) + "\r")
            sys.stdout.flush()
            self.text = ""


def wants_waiting_line() -> bool:
    """A person is watching: a notebook or a terminal, and not a build whose output is kept."""
    ipython = sys.modules.get("IPython")
    watched = (ipython and ipython.get_ipython()) or (hasattr(sys.stdout, "isatty") and sys.stdout.isatty())
    return bool(watched) and os.environ.get("COURSE_LIB_PROGRESS") != "0"

"""In a rank: every operation of torch.distributed is written into the ledger before it begins and after it is done.

Seen are all functions of torch.distributed, and so what is written in Python on top of them: FSDP, pipelining,
device meshes, object collectives; functional collectives, and so DTensor; and DistributedDataParallel's own all-reduces, which are issued
from C++. Not seen: what a backend does inside one operation; waits inside C++ (DistributedDataParallel's, and those of futures), in
which a rank counts as computing; and what does not use torch.distributed at all.
"""

import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from course_lib.ranks.call_sites import Sites
from course_lib.ranks.ledger import FAILED_CALL, OWN_TIMEOUT, Ledger
from course_lib.ranks.network import Network
from course_lib.ranks.operations import METHODS, Call, Parts, call_of, key_of, monitored_barrier, receive_from_any

_ProcessGroup, _Work = dist.ProcessGroup, dist.Work
_UNKNOWN = -1, False, None


class Hooks:
    """The hooks of one rank; `install` puts them where torch.distributed will call them."""

    def __init__(self, ledger: Ledger, network: Network | None = None):
        self.ledger = ledger
        self.network = network  # emulated links, or None
        self.groups: dict[str, tuple[int, ...]] = {}
        self.calls: dict[int, Call] = {}  # by their numbers in the ledger; the network needs them
        self.works: dict[int, tuple[int, bool, weakref.ref | None]] = {}  # id of a Work -> operation, from any source?
        self.wait, self.is_completed = _Work.wait, _Work.is_completed
        self.sites = Sites(ledger)
        self.inside: threading.local | None = None  # is this thread in a hooked method? asked while DDP is watched

    def install(self) -> None:
        """From now on everything is recorded."""
        for method, parts_of in METHODS.items():
            original = _ProcessGroup.__dict__.get(method)  # not getattr, which would lose that it is a method
            if original is not None:
                setattr(_ProcessGroup, method, self._hooked(getattr(_ProcessGroup, method), parts_of))
                getattr(_ProcessGroup, method).__wrapped__ = original
        plain_wait = _Work.__dict__["wait"]
        _Work.wait = lambda work, *args, **kwargs: self._wait(work, *args, **kwargs)
        _Work.wait.__wrapped__ = plain_wait
        _Work.is_completed = lambda work: self._is_completed(work)
        helper = c10d._new_process_group_helper
        c10d._new_process_group_helper = lambda *args, **kwargs: self._new_group(helper, *args, **kwargs)

    def _hooked(self, method: Callable, parts_of: Callable) -> Callable:
        ledger, wait, from_any = self.ledger, self.wait, parts_of is receive_from_any
        waits_below = parts_of is monitored_barrier

        def hooked(group, *args, **kwargs):
            opts = args[-1] if args else kwargs.get("opts")
            asynchronous = getattr(opts, "asyncOp", None)  # messages and some overloads do not say
            # To issue an operation needs no other rank. One that the system puts aside meanwhile does not wait yet, and
            # what it does before it waits may be what the others need.
            blocks = asynchronous is False or waits_below
            number = self.begin(group, parts_of(*args, **kwargs), asynchronous is True, 2, blocks)
            if self.inside is not None:
                self.inside.python = True
            try:
                work = method(group, *args, **kwargs)
                if asynchronous is False:
                    issued = time.monotonic()
                    if work is not None:
                        wait(work)  # torch.distributed's function would do so next
                    if self.network:
                        self.network.wait(number)
            except BaseException:
                ledger.flag(number, FAILED_CALL)
                raise
            finally:
                if blocks:
                    ledger.resume()
                if self.inside is not None:
                    self.inside.python = False
            if asynchronous is False:
                ledger.end(number, issued, time.monotonic())
                return work
            return self.follow(work, number, asynchronous is True, from_any)

        return hooked

    def begin(self, group: dist.ProcessGroup, parts: Parts, asynchronous: bool, depth: int, blocks: bool = True) -> int:
        """Write down that an operation begins; returns its number. depth: how many of our own frames are on top."""
        name = group.group_name
        ranks = self.groups.get(name)
        if ranks is None:
            ranks = self.groups[name] = tuple(dist.get_process_group_ranks(group))
        key = key_of(name, parts, asynchronous)
        call = self.ledger.name(key, lambda: call_of(name, ranks, parts, asynchronous).describe())
        number = self.ledger.begin(call, self.sites.number(sys._getframe(depth)), blocks)
        if self.network:
            if call not in self.calls:
                self.calls[call] = call_of(name, ranks, parts, asynchronous)
            self.network.begin(number, self.calls[call])
        return number

    def follow(self, work: Any, number: int, asynchronous: bool, from_any: bool) -> Any:
        """Note when the work that an operation returned is done."""
        if work is None:  # it was done when the call returned
            if self.network:
                self.network.wait(number)
            self.ledger.end(number)
            return work
        key = id(work)
        self.works[key] = number, from_any, weakref.ref(work, lambda _: self.works.pop(key, None))
        if asynchronous and not self.network:
            try:
                future = work.get_future()
            except RuntimeError:  # messages have none
                return work
            future.add_done_callback(lambda _: self.ledger.end_early(number, time.monotonic()))
        return work

    def _wait(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        number, from_any, _ = self.works.get(id(work), _UNKNOWN)
        if number < 0:
            return self.wait(work, *args, **kwargs)
        if args or kwargs:
            self.ledger.flag(number, OWN_TIMEOUT)
        begin = time.monotonic()
        self.ledger.block(number, begin)
        try:
            result = self.wait(work, *args, **kwargs)
            source = work._source_rank() if from_any else -1
            if self.network:
                self.ledger.end_early(number, max(begin, self.network.wait(number, source)))
        except BaseException:
            self.ledger.flag(number, FAILED_CALL)
            raise
        finally:
            self.ledger.resume()
        self.ledger.end(number, begin, time.monotonic(), source)
        self.works.pop(id(work), None)
        return result

    def _is_completed(self, work: Any) -> bool:
        done = self.is_completed(work)
        number, from_any, _ = self.works.get(id(work), _UNKNOWN)
        source = work._source_rank() if done and from_any else -1
        if done and self.network and number >= 0:
            done = self.network.is_over(number, source)
        if done and number >= 0:
            self.ledger.end(number, peer=source)
            self.works.pop(id(work), None)
        return done

    def _new_group(self, helper: Callable, size, group_rank, ranks, backend, store, name, **options) -> Any:
        """A new group: its members wait for each other, as in a collective."""
        members = tuple(ranks) or tuple(range(size))
        with self.during("new_group", f"new group {name}", members, group_rank is not None):
            return helper(size, group_rank, ranks, backend, store, name, **options)

    @contextmanager
    def during(self, operation: str, group: str, ranks: tuple[int, ...], member: bool = True):
        """Record what the block does as one operation in which this thread stands still."""
        if not member:
            yield
            return
        call = Call(operation, group, ranks, agree=(operation,))
        number = self.ledger.begin(self.ledger.name(call, call.describe), self.sites.number(sys._getframe(3)))
        try:
            yield
        except BaseException:
            self.ledger.flag(number, FAILED_CALL)
            raise
        finally:
            self.ledger.resume()
        self.ledger.end(number)

"""A museum of faults: one small training job in which exactly one thing can be wrong.

`launch(train, 4, TENSOR)` is the healthy job, `launch(train, 4, TENSOR, "sum for mean")` an exhibit. Each fault is one place in this
file, at `broken("its name")`; the list of them, with where each was found, is in `course_lib.faults.known`.

    TENSOR      dp 2 × tp 2     ranks 0 1 | 2 3: a copy of the model each, cut in two, with sequence parallelism
    PIPELINE    dp 2 × pp 2     ranks 0 2 | 1 3: a copy each, cut into two stages

The model, in float64:  e = wte[x];  y = e + down · gelu(up · (norm ⊙ layernorm(e))) + bias;  logits = y · wteᵀ, tied to the embedding.
"""

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib.collectives.autograd import gather_from_group, gather_sequence, reduce_scatter_sequence, split_to_group
from course_lib.faults.known import FAULTS, PIPELINE, TENSOR
from course_lib.layout import Layout
from course_lib.parallel.hybrid import make_groups
from course_lib.ranks.spans import span

__all__ = ["FAULTS", "PIPELINE", "TENSOR", "train"]

VOCABULARY, WIDTH, HIDDEN, CONTEXT, ROWS = 16, 8, 20, 6, 4  # ROWS of each copy in a micro-batch
SHAPES = {
    "wte": (VOCABULARY, WIDTH),
    "norm": (WIDTH,),
    "up": (HIDDEN, WIDTH),
    "down": (WIDTH, HIDDEN),
    "bias": (WIDTH,),
}
SPLIT = {"up": 0, "down": 1}  # the dim that tensor parallel cuts
LAST_STAGE = "bias", "wte"  # the first stage has all but bias: wte is at both ends
PARTIAL = "norm", "bias"  # with sequence parallelism, a rank's gradient is that of its part of the sequence


def train(
    layout: Layout, fault: str = "", seed: int = 0, m: int = 3, max_norm: float | None = None, steps: int = 3
) -> dict:
    """On each rank: train, and return what a rank can know of itself. m: micro-batches of a step.

    {"first": weights at the start, "weights": at the end, "losses": mean over its copy's own rows, one a step, "norms": of the gradient}
    In the trace every step is a span "step". Raises KeyError for a fault that is not in FAULTS.
    """  # fmt: skip
    if fault:
        max_norm = FAULTS[fault].max_norm or max_norm
    job = _Job(layout, fault, seed, m, max_norm)
    first = {name: w.detach().clone() for name, w in job.weights.items()}
    last = steps + (job.broken("one step more") and dist.get_rank() == 0)
    log = []
    for step in range(last):
        with span("step"):
            log.append(job.step(step))
    weights = {name: w.detach() for name, w in job.weights.items()}
    losses, norms = map(list, zip(*log, strict=True))
    return {"first": first, "weights": weights, "losses": losses, "norms": norms}


class _Job:
    def __init__(self, layout: Layout, fault: str, seed: int, m: int, max_norm: float | None):
        self.layout, self.fault, self.seed, self.m, self.max_norm = layout, fault, seed, m, max_norm
        self.rank, self.at = dist.get_rank(), layout.coordinates(dist.get_rank())
        self.groups = make_groups(layout)
        generator = torch.Generator().manual_seed(1000 * seed + self.rank)
        self.weights = {}
        for name, shape in SHAPES.items():
            whole = 0.3 * torch.randn(shape, dtype=torch.float64, generator=generator)
            if not self.broken("no broadcast"):
                dist.broadcast(whole, src=0)
            if name in SPLIT:
                whole = whole.chunk(layout.tp, SPLIT[name])[self.at.tp].clone()
            if layout.pp == 1 or (self.at.pp == 0 and name != "bias") or (self.at.pp == 1 and name in LAST_STAGE):
                self.weights[name] = whole.requires_grad_()

    def broken(self, fault: str) -> bool:
        return self.fault == fault

    def step(self, number: int) -> tuple[float, float]:
        """One step of training: (loss of this copy's rows, norm of the gradient)."""
        x, y = self.batch(number)
        own = (y >= 0).sum().item()
        total = torch.tensor(own)
        if not self.broken("mean of means"):
            self.add_up(total, "dp")  # tokens that count, in the whole batch
        loss = sum(self.micro_batch(*rows, total) for rows in zip(x.chunk(self.m), y.chunk(self.m), strict=True))
        if self.broken("step too early"):
            self.update()
        self.average()
        norm = self.clip()
        if not self.broken("step too early"):
            self.update()
        for w in self.weights.values():
            w.grad = None
        if self.broken("rank 0 only") and self.rank == 0:
            dist.all_reduce(torch.tensor(loss))  # for the log
        return loss / own, norm

    def batch(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """This copy's rows: tokens and the tokens that follow, -100 where none counts; texts end at different places."""
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        share = self.m * ROWS
        tokens = torch.randint(VOCABULARY, (share * self.layout.dp, CONTEXT + 1), generator=generator)
        sure = torch.rand(tokens.shape, generator=generator) < 0.8  # a text that can be learnt: 5t + 3 often follows t
        for i in range(CONTEXT):
            tokens[:, i + 1] = torch.where(sure[:, i], (5 * tokens[:, i] + 3) % VOCABULARY, tokens[:, i + 1])
        length = torch.randint(1, CONTEXT + 1, (len(tokens), 1), generator=generator)
        following = tokens[:, 1:].masked_fill(torch.arange(CONTEXT) >= length, -100)
        copy = 0 if self.broken("same rows") else self.at.dp
        mine = slice(copy * share, (copy + 1) * share)
        return tokens[mine, :-1], following[mine]

    def micro_batch(self, x: torch.Tensor, y: torch.Tensor, total: torch.Tensor) -> float:
        """Forward and backward; the sum of the losses of its tokens, 0 on a first stage."""
        at, pp = self.at.pp, self.layout.pp
        if at == 0:
            out = self.block(x)
            if pp == 1:
                return self.backward(out, y, total)
            dist.send(out.detach(), self.rank + self.layout.stride("pp"))
            gradient = torch.empty_like(out)
            dist.recv(gradient, self.rank + self.layout.stride("pp"))
            out.backward(gradient)
            return 0.0
        arriving = torch.empty(*x.shape, WIDTH, dtype=torch.float64)
        dist.recv(arriving, self.rank - self.layout.stride("pp"))
        loss = self.backward(arriving.requires_grad_(), y, total)
        dist.send(arriving.grad, self.rank - self.layout.stride("pp"))
        return loss

    def block(self, x: torch.Tensor) -> torch.Tensor:
        """All but the head; in a pipeline, all but the bias. x (rows, s) -> (rows, s/t, width)"""
        w, tp = self.weights, self.groups["tp"]
        e = split_to_group(w["wte"][x], 1, tp)
        enter = gather_from_group if self.broken("no backward reduce") else gather_sequence
        normed = enter(w["norm"] * F.layer_norm(e, (WIDTH,)), 1, tp)  # (rows, s, width)
        down = F.gelu(normed @ w["up"].T) @ w["down"].T
        if self.broken("bias twice"):
            return e + reduce_scatter_sequence(down + w["bias"], 1, tp)
        return e + reduce_scatter_sequence(down, 1, tp)

    def backward(self, out: torch.Tensor, y: torch.Tensor, total: torch.Tensor) -> float:
        """The head, the loss and its gradient. Gradients of copies will be averaged, hence `dp` in the scale."""
        if not self.broken("bias twice"):
            out = out + self.weights["bias"]
        logits = gather_from_group(out, 1, self.groups["tp"]) @ self.weights["wte"].T
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum")
        scale = self.layout.dp / total.item()
        if self.broken("mean of means"):
            scale = 1 / (y >= 0).sum().item() / self.m
        if self.broken("not divided"):
            scale = scale * self.m
        (loss * scale).backward()
        return loss.item()

    def average(self) -> None:
        """Gradients: the sum over what is partial, then the mean over the copies."""
        if not self.broken("untied") and "wte" in self.weights:
            self.add_up(self.weights["wte"].grad, "pp")
        for name in PARTIAL:
            if name in self.weights and not (name == "norm" and self.broken("norms drift")):
                self.add_up(self.weights[name].grad, "tp")
        names = list(self.weights)
        if self.broken("other order") and self.at.dp == 1:
            names = ["wte", "bias", "up", "down", "norm"]
        if self.broken("swapped") and self.at.dp == 1:
            names = names[::-1]
        for name in names:
            forgotten = list(SHAPES)[self.seed % len(SHAPES)] if self.broken("one forgotten") else ""
            if self.broken("no all-reduce") or name == forgotten:
                continue
            self.add_up(self.weights[name].grad, "dp")
            if not self.broken("sum for mean"):
                self.weights[name].grad /= self.layout.dp

    def clip(self) -> float:
        """The norm over all parts of the model, each value counted once; gradients are cut down to max_norm, if there is one."""
        square = torch.zeros((), dtype=torch.float64)
        for name, w in self.weights.items():
            copies = self.layout.pp if name == "wte" else 1
            square += w.grad.square().sum() / (copies if name in SPLIT else copies * self.layout.tp)
        if not self.broken("clips alone"):
            self.add_up(square, "tp")
            self.add_up(square, "pp")
        norm = square.sqrt()
        if self.max_norm is not None:
            for w in self.weights.values():
                w.grad *= (self.max_norm / norm).clamp(max=1)
        return norm.item()

    @torch.no_grad()
    def update(self) -> None:
        for w in self.weights.values():
            w -= 0.5 * w.grad

    def add_up(self, tensor: torch.Tensor, axis: str) -> None:
        if getattr(self.layout, axis) > 1:
            dist.all_reduce(tensor, group=self.groups[axis])

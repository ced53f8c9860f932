"""Results as their papers print them, to hold our calculator against. A number stands here as a text, with its digits.

`validate` computes ours beside each. To add a run is to add a line.
"""

from dataclasses import dataclass

from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer

GPT3 = "Brown et al. 2020, tables 2.1 and D.1"
MEGATRON = "Narayanan et al. 2021"
SELECTIVE = "Korthikanti et al. 2022"
ZERO = "Rajbhandari et al. 2020, table 1"
PALM = "Chowdhery et al. 2022, table 3"
LLAMA3 = "Grattafiori et al. 2024"

# How much longer kernels take than the hardware needs: one constant a paper, the mean over its runs below. It stands for the
# software of its year (the same library, one year apart) and for clocks that sink under load.
SOFTWARE = {MEGATRON: 1.19, SELECTIVE: 1.10}


@dataclass(frozen=True)
class PublishedRun:
    """A training run: what was run, and what was printed of it, seconds of a step or TFLOP/s on each GPU."""

    paper: str
    name: str
    model: Transformer
    plan: Plan
    step_s: str = ""
    tflops: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of a step, from TFLOP/s by the paper's own count of FLOPs where no time is printed."""
        if self.step_s:
            return float(self.step_s)
        flops = self.model.hardware_flops(self.plan.batch, self.plan.recompute)
        return flops / (self.plan.num_gpus * float(self.tflops) * 1e12)


def _megatron(name, width, num_heads, num_layers, tp, pp, gpus, batch, microbatch, chunks, tflops) -> PublishedRun:
    # Without a pipeline these runs used PyTorch's DDP, which sends gradients while backward runs; with one, Megatron's own,
    # which sends them after it (examples/sc21/run_table_1.sh in NVIDIA's Megatron-LM).
    dp = gpus // (tp * pp)
    plan = Plan(pp, dp, tp, batch, microbatch, chunks, recompute="full", overlap_gradients=pp == 1)
    return PublishedRun(MEGATRON, name, Transformer(name, num_layers, width, num_heads), plan, tflops=tflops)


def _selective(name, width, num_heads, num_layers, pp, batch, microbatch, chunks, step_s, new: bool) -> PublishedRun:
    recompute = "selective" if new else "full"
    plan = Plan(pp, 1, 8, batch, microbatch, chunks, recompute, sequence_parallel=new)
    label = f"{name}, {'sequence parallel, selective' if new else 'full recomputation'}"
    return PublishedRun(SELECTIVE, label, Transformer(name, num_layers, width, num_heads), plan, step_s)


# A100-80GB, 8 in a node. Narayanan et al. 2021, table 1 (micro-batches and chunks from the scripts named above), table 2, and
# the README of Megatron-LM for 1,024 GPUs. Korthikanti et al. 2022, table 5.
RUNS = (
    _megatron("1.7B", 2304, 24, 24, 1, 1, 32, 512, 16, 1, "137"),
    _megatron("7.5B", 4096, 32, 36, 4, 1, 128, 512, 16, 1, "142"),
    _megatron("76.1B", 10240, 80, 60, 8, 4, 1024, 1792, 2, 3, "140"),
    _megatron("310.1B", 16384, 128, 96, 8, 16, 1920, 2160, 1, 2, "155"),
    _megatron("1008.0B", 25600, 160, 128, 8, 64, 3072, 3072, 1, 1, "163"),
    _megatron("174.6B on 384", 12288, 96, 96, 8, 12, 384, 1536, 1, 1, "153"),
    _megatron("174.6B on 768", 12288, 96, 96, 8, 12, 768, 1536, 1, 1, "149"),
    _megatron("174.6B on 1024", 12288, 96, 96, 8, 16, 1024, 1536, 1, 1, "138"),
    _megatron("174.6B on 1536", 12288, 96, 96, 8, 12, 1536, 1536, 1, 1, "141"),
    _selective("22B", 6144, 64, 48, 1, 4, 4, 1, "1.42", new=False),
    _selective("22B", 6144, 64, 48, 1, 4, 4, 1, "1.10", new=True),
    _selective("175B", 12288, 96, 96, 8, 64, 1, 3, "18.13", new=False),
    _selective("175B", 12288, 96, 96, 8, 64, 1, 3, "13.75", new=True),
)

# One layer of the 22B model on one of 8 ranks: milliseconds forward and backward together. Korthikanti et al. 2022, table 4.
LAYERS_MS = (
    ("nothing computed again", Plan(tp=8, batch=4, microbatch=4), "19.6"),
    ("sequence parallel", Plan(tp=8, batch=4, microbatch=4, sequence_parallel=True), "19.0"),
    ("full recomputation", Plan(tp=8, batch=4, microbatch=4, recompute="full"), "27.2"),
)

# Name, parameters in units, unit, source. The names "Llama 3 70B" and so on are rounded, and not always to the nearest.
PARAMETERS = (
    *(
        (f"GPT-3 {size}", millions, 1e6, GPT3)
        for size, millions in (
            ("Small", "125"), ("Medium", "356"), ("Large", "760"), ("XL", "1320"), ("2.7B", "2650"), ("6.7B", "6660"),
            ("13B", "12850"), ("175B", "174600"),
        )
    ),
    ("BERT-Base", "109", 1e6, GPT3),
    ("RoBERTa-Large", "355", 1e6, GPT3),
    ("Llama 3 8B", "8", 1e9, LLAMA3),
    ("Llama 3 405B", "405", 1e9, LLAMA3),
    ("MT-NLG 530B", "530", 1e9, "Smith et al. 2022"),
    ("PaLM 540B", "540", 1e9, PALM),
    ("Megatron 1T", "1008.0", 1e9, MEGATRON + ", table 1"),
    ("ResNet-50", "25.6", 1e6, "He et al. 2015"),
)  # fmt: skip

# Printed, and not what the shape gives: shown, and not held.
CONTRADICTED = (
    ("BERT-Large", "355", 1e6, GPT3, "the number of RoBERTa-Large; the BERT paper itself prints 340"),
    ("Llama 3 70B", "70", 1e9, LLAMA3, "a name: 70.5 rounded down"),
)

# Model, training FLOPs, petaFLOP/s-days: 300 billion tokens each, and 6ND with the N of table D.1.
GPT3_COMPUTE = (
    ("Small", "2.25e20", "2.60"), ("Medium", "6.41e20", "7.42"), ("Large", "1.37e21", "15.8"), ("XL", "2.38e21", "27.5"),
    ("2.7B", "4.77e21", "55.2"), ("6.7B", "1.20e22", "139"), ("13B", "2.31e22", "268"), ("175B", "3.14e23", "3.64e3"),
)  # fmt: skip

# TFLOP/s on each GPU as a share of 312, in percent. Narayanan et al. 2021, table 1.
PERCENT_OF_PEAK = {"137": "44", "142": "46", "140": "45", "155": "50", "163": "52", "138": "44"}

# Model FLOPs and, with recomputation, hardware FLOPs as a share of peak, percent. Korthikanti et al. 2022, table 5.
UTILISATION = {"22B": ("41.5", "43.7"), "175B": ("51.4", "52.8")}
# Selective recomputation: FLOPs it adds and activation memory it saves, percent. Korthikanti et al. 2022, section 5.
SELECTIVE_TRADE = {"GPT-3 175B": ("2.7", "70"), "MT-NLG 530B": ("1.6", "65")}

# GB of model states on each GPU for 7.5 billion parameters, by data-parallel ranks: stages 1, 2, 3.
ZERO_TABLE = {
    1: ("120", "120", "120"),
    4: ("52.5", "41.3", "30"),
    16: ("35.6", "21.6", "7.5"),
    64: ("31.4", "16.6", "1.88"),
    256: ("30.4", "15.4", "0.47"),
    1024: ("30.1", "15.1", "0.12"),
}

# GiB of activations on each GPU of the first stage, layers only: Korthikanti et al. 2022, equations 2, 4 and 6, as profiled in
# the validation of Calculon (Isaev et al. 2023); and of states at 18 bytes a parameter.
ACTIVATIONS_GIB = {"22B": ("59.25", "9.56"), "175B": ("66.84", "12.35")}
STATES_GIB = {"22B": "45.56", "175B": "45.56"}

# GB of states without and with gradients kept in float32 as well. Tazi et al. 2025, The Ultra-Scale Playbook.
PLAYBOOK_STATES = {1: ("16", "20"), 7: ("112", "140"), 70: ("1120", "1400"), 405: ("6480", "8100")}

# Days: model, tokens, GPUs, TFLOP/s on each, days. Narayanan et al. 2021, section 5.1 and table 2.
DAYS = (
    ("GPT-3 175B", 300e9, 1024, 140, "34"),
    ("Megatron 1T", 450e9, 3072, 163, "84"),
    ("GPT-3 175B", 300e9, 384, 153, "84"),
    ("GPT-3 175B", 300e9, 768, 149, "43"),
    ("GPT-3 175B", 300e9, 1536, 141, "23"),
)

# Idle over working time with 8 stages: micro-batches, chunks, ratio. Tazi et al. 2025.
BUBBLES = ((32, 1, "0.21875"), (8, 2, "0.4375"), (1, 1, "7.0"))

# What the units of a GPU multiply: clock, FLOPs a clock and unit, units. Bekman, Machine Learning Engineering.
PEAKS = (("A100", 1410e6 * 256 * 2 * 432, "312"), ("H100", 1830e6 * 512 * 2 * 528, "989"))


def megatron_gpt(name: str) -> Transformer:
    """A model of MODELS with the padded vocabulary of 51,200 that Megatron's runs have."""
    m = MODELS[name]
    return Transformer(name, m.num_layers, m.width, m.num_heads)

"""What a training run costs, by arithmetic alone: operations, bytes of memory, hours."""

from dataclasses import dataclass

from affinage.training.hardware import Machine

UTILISATION = 0.4
"""share of the peak that a training step is assumed to reach; `--dry-run` measures it"""
_WEIGHT = 4
"""bytes of a weight: affinage holds weights, gradients and AdamW's two moments in float32"""


@dataclass(frozen=True)
class Shape:
    """The sizes that decide what a masked language model costs."""

    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    vocab_size: int
    positions: int = 514
    """rows of the position table"""
    token_types: int = 1

    @property
    def linear_weights(self) -> int:
        """Weights of the encoder's matrix products: L (4 d^2 + 2 d E)."""
        width = self.hidden_size
        return self.layers * (4 * width**2 + 2 * width * self.intermediate_size)

    @property
    def parameters(self) -> int:
        """Of the encoder, its embeddings and the vocabulary head, whose projection is the word embeddings.

        Delestre & Amar 2022, arXiv:2205.11111, equation 9, for the encoder and the embeddings:
        L (4 d^2 + 2 d E + 9 d + E) + d (|W| + |positions| + 2), then d for each token type, and the head's dense map,
        norm and bias: d^2 + 3 d + |W|.
        """
        width = self.hidden_size
        encoder = self.linear_weights + self.layers * (9 * width + self.intermediate_size)
        embeddings = width * (self.vocab_size + self.positions + 2 + self.token_types)
        return encoder + embeddings + width**2 + 3 * width + self.vocab_size

    def encoder_flops(self, row_length: int) -> int:
        """Operations a token of one forward pass: 2 a weight, and 4 n d a layer for attention in rows of n tokens.

        Norms, softmax, activations and embeddings, below one per cent, are left out.
        """
        return 2 * self.linear_weights + 4 * self.layers * row_length * self.hidden_size

    @property
    def head_flops(self) -> int:
        """Operations a token of the vocabulary head's forward pass: 2 (d^2 + d |W|)."""
        return 2 * self.hidden_size * (self.hidden_size + self.vocab_size)


@dataclass(frozen=True)
class Workload:
    """What one device computes in one optimizer step."""

    student: Shape
    teacher: Shape | None
    """None: no loss compares with one"""
    head_share: float
    """of real tokens: those whose vocabulary logits the student's losses want"""
    teacher_head: bool
    """whether a loss wants the teacher's logits too, at the same tokens"""
    row_length: int
    rows: int
    """in one forward pass"""
    accumulation: int
    """forward passes of a step"""
    bf16: bool
    dropout: bool
    chunk_entries: int
    """logits (tokens x vocabulary) that exist at a time"""

    @property
    def tokens(self) -> int:
        """Of one forward pass of one device, rows full."""
        return self.rows * self.row_length


@dataclass(frozen=True)
class Flops:
    """Operations a real token of a training step. What is recomputed, and the optimizer, is not counted."""

    student: float
    teacher: float
    head: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.student + self.teacher + self.head


def flops_per_token(work: Workload) -> Flops:
    """The backward pass costs two forward passes; the teacher has none; the head is computed where a loss wants it."""
    heads = 3 * work.student.head_flops
    teacher = 0
    if work.teacher is not None:
        teacher = work.teacher.encoder_flops(work.row_length)
        heads += work.teacher.head_flops * work.teacher_head
    return Flops(3 * work.student.encoder_flops(work.row_length), teacher, work.head_share * heads)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a step: the sum of what is counted, which never stands all at once.

    Left out: the framework itself (a CUDA context is 0.3 to 0.6 GB), workspaces, what an allocator keeps, the batch,
    and the teacher's inner states where losses compare them.
    """

    weights: float
    gradients: float
    optimizer: float
    teacher: float
    copies: float
    """the weights in bfloat16 that autocast keeps, the vocabulary projection's gradient, DDP's buckets"""
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of them."""
        return (
            self.weights + self.gradients + self.optimizer + self.teacher + self.copies + self.activations + self.logits
        )


def memory(work: Workload, *, devices: int = 1, fused_dropout: bool = True) -> Memory:
    """Bytes on each of `devices` that train together, every one with a whole model (DDP).

    `fused_dropout`: see `Machine`; where it is False, dropout keeps the attention probabilities.
    """
    shape, bf16 = work.student, work.bf16
    parameters = shape.parameters
    vocabulary = shape.hidden_size * shape.vocab_size
    copies = _WEIGHT * vocabulary + (2 * (shape.linear_weights + vocabulary) if bf16 else 0)
    chunk = min(work.chunk_entries, round(work.tokens * work.head_share) * shape.vocab_size)
    return Memory(
        weights=_WEIGHT * parameters,
        gradients=_WEIGHT * parameters,
        optimizer=2 * _WEIGHT * parameters,
        teacher=_WEIGHT * work.teacher.parameters if work.teacher else 0,
        copies=copies + (_WEIGHT * parameters if devices > 1 else 0),
        activations=work.tokens * _activation_bytes(work, fused_dropout),
        # at most, as on a GPU in float32: both models' logits, these with biases, their two log-distributions
        logits=6 * 4 * chunk,
    )


def layer_activation_bytes(
    shape: Shape, *, row_length: int, bf16: bool, dropout: bool, fused_dropout: bool = True
) -> float:
    """Bytes a token that one stock layer keeps for its backward pass, n = `row_length`, d, E, A heads.

    As Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1) count them, for transformers' code and torch's fused
    attention. In float32 4 (8 d + 2 E): the layer's input, q, k, v, what attention gives, the inputs of both norms and
    the first one's output are 8 d. Under bf16 autocast 24 d + 4 E: the input is cast once for each of q, k and v, the
    norms' inputs stay float32. To both come 4 A + 16 for the log-sum-exp and the norms' statistics, and the mask's row
    of n.

    Dropout adds two masks of d; without a fused kernel q, k and v in float32 and 12 A n for the probabilities, with the
    mask and the log-sum-exp gone.
    """
    width, inner, size = shape.hidden_size, shape.intermediate_size, 2 if bf16 else 4
    kept = (24 * width if bf16 else 32 * width) + 2 * size * inner + 16
    if not dropout:
        return kept + 4 * shape.heads + size * row_length
    if fused_dropout:
        return kept + 4 * shape.heads + size * row_length + 2 * width
    return kept + 2 * size * width + 3 * (4 - size) * width + 12 * shape.heads * row_length


def _activation_bytes(work: Workload, fused_dropout: bool) -> float:
    """Bytes a token: the student's layers and head, and what one layer of the teacher needs in passing."""
    shape = work.student
    layer = layer_activation_bytes(
        shape, row_length=work.row_length, bf16=work.bf16, dropout=work.dropout, fused_dropout=fused_dropout
    )
    ends = 8 * shape.hidden_size + work.head_share * 16 * shape.hidden_size  # embeddings; the head's dense map and norm
    passing = 0
    if work.teacher is not None:
        size = 2 if work.bf16 else 4
        passing = 8 * work.teacher.hidden_size + size * (
            4 * work.teacher.hidden_size + 2 * work.teacher.intermediate_size
        )
    return shape.layers * layer + ends + passing


@dataclass(frozen=True)
class Estimate:
    """A whole run on one machine, on paper."""

    machine: Machine
    precision: str
    """bf16 or fp32"""
    flops_per_token: Flops
    tokens: float
    steps: int
    utilisation: float
    tokens_per_second: float
    """of all devices together"""
    hours: float
    memory: Memory
    """of one device"""

    @property
    def flops(self) -> float:
        """Operations of the run."""
        return self.flops_per_token.total * self.tokens

    @property
    def fits(self) -> bool:
        """Whether what is counted is less than a device's memory."""
        return self.memory.total < self.machine.memory_bytes


def estimate(work: Workload, machine: Machine, *, tokens: float, utilisation: float = UTILISATION) -> Estimate:
    """Hours = operations / (peak x utilisation), a share of the peak in (0, 1]."""
    precision = "bf16" if work.bf16 else "fp32"
    flops = flops_per_token(work)
    speed = machine.peak(precision) * utilisation / flops.total
    return Estimate(
        machine=machine,
        precision=precision,
        flops_per_token=flops,
        tokens=tokens,
        steps=max(1, round(tokens / (work.tokens * work.accumulation * machine.devices))),
        utilisation=utilisation,
        tokens_per_second=speed,
        hours=tokens / speed / 3600,
        memory=memory(work, devices=machine.devices, fused_dropout=machine.fused_dropout),
    )

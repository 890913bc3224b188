"""Exported graphs beside transformers' pipeline, at batch 1 and on the mixed list: onnx_runtime.py [THREADS] [SHAPE …].

Random weights of the right shapes: speed only. Models take turns within a round (`runtime.benchmark`); ratios are to
the float32 pipeline of the 12-layer model in the same run, where that is among the shapes (the first one, where not).
Prints a table and the operators of each graph. Give the machine nothing else to do.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import CamembertConfig, CamembertForSequenceClassification

from affinage.runtime.benchmark import interleave
from affinage.runtime.onnx.build import onnx_graph
from affinage.runtime.onnx.linear import Int8
from affinage.runtime.onnx.session import OnnxEngine
from affinage.runtime.workload import mixed_lengths

SHAPES = {  # layers, width, heads, feed-forward
    "12x768": (12, 768, 12, 3072),
    "6x768": (6, 768, 12, 3072),
    "6x384": (6, 384, 12, 1536),
    "4x312": (4, 312, 12, 1200),
}
VOCABULARY, PAD = 32005, 1
LENGTHS = (16, 64, 128, 384)
BUDGET = 1024
"""tokens of a batch of the mixed list, padding included"""
Batch = dict[str, np.ndarray]


def network(shape: str) -> Any:
    layers, width, heads, inner = SHAPES[shape]
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    config = CamembertConfig(
        vocab_size=VOCABULARY, intermediate_size=inner, max_position_embeddings=514, type_vocab_size=1, **sizes
    )
    return CamembertForSequenceClassification(config).eval()


def batch(lengths: Sequence[int]) -> Batch:
    ids = np.full((len(lengths), max(lengths)), PAD, np.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = np.random.default_rng(length).integers(5, VOCABULARY - 1, length)
    return {"input_ids": ids, "attention_mask": (ids != PAD).astype(np.int64)}


def mixed_batches() -> list[Batch]:
    """The list, longest first, as many texts a batch as the budget holds."""
    groups: list[list[int]] = []
    for length in sorted(mixed_lengths(), reverse=True):
        if groups and (len(groups[-1]) + 1) * groups[-1][0] <= BUDGET:
            groups[-1].append(length)
        else:
            groups.append([length])
    return [batch(group) for group in groups]


def in_torch(model: Any) -> Callable[[Batch], object]:
    def run(inputs: Batch) -> object:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits

    return run


def main(threads: int, shapes: Sequence[str]) -> None:
    torch.set_num_threads(threads)
    names: list[str] = []
    runs: list[Callable[[Batch], object]] = []
    for shape in shapes:
        model = network(shape)
        names.append(f"{shape} torch")
        runs.append(in_torch(model))
        for name, int8 in (("float32", None), ("int8", Int8())):
            graph = onnx_graph(model, int8=int8)
            names.append(f"{shape} {name}")
            print(names[-1], dict(Counter(node.op_type for node in graph.graph.node).most_common()))
            runs.append(OnnxEngine(graph.SerializeToString(), pad_id=PAD, threads=threads).run)
    for title, batches in (*((f"1 x {n}", [batch([n])]) for n in LENGTHS), ("mixed", mixed_batches())):
        timing = interleave(
            lambda i, step, given=batches: runs[i](given[step]),
            models=len(runs),
            steps=len(batches),
            warmup=2,
            repeats=30,
            seconds=60.0,
        )
        tokens = sum(int(one["attention_mask"].sum()) for one in batches)
        for i, name in enumerate(names):
            ratio, low, high = timing.ratio(i)
            ms, speed = timing.quantile_ms(i, 0.5), tokens / timing.median_round(i)
            print(f"{title:8} {name:16} {ms:8.2f} ms {speed:10,.0f} tokens/s {ratio:6.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2, sys.argv[2:] or list(SHAPES))

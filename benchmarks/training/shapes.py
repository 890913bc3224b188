"""What every way of training is measured on: random weights of one shape, rows, lengths."""

from typing import Any

import torch
from transformers import CamembertConfig, CamembertForMaskedLM, PreTrainedTokenizerFast

from affinage.models.checkpoint import load_tokenizer

LENGTH, ROWS = 128, 32
FILL = 0.44
"""share of a row of LENGTH that one text fills, in the mean of the texts that compare.py writes"""
WARM_UP = 3
"""steps that are not counted"""
LAYERS, WIDTH, HEADS = 12, 256, 4


def tokenizer() -> PreTrainedTokenizerFast:
    """The shipped vocabulary of 16,000 pieces."""
    return load_tokenizer("shipped:teacher")


def model(layers: int) -> CamembertForMaskedLM:
    """A stock model of random weights."""
    known = tokenizer()
    return CamembertForMaskedLM(
        CamembertConfig(
            vocab_size=len(known),
            hidden_size=WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=known.pad_token_id,
            bos_token_id=known.bos_token_id,
            eos_token_id=known.eos_token_id,
        )
    )


def models(objective: str) -> tuple[Any, Any]:
    """The model to train and, when distilling, its frozen teacher."""
    torch.manual_seed(0)
    teacher = model(LAYERS)
    if objective == "mlm":
        return teacher.train(), None
    return model(LAYERS // 2).train(), teacher.eval().requires_grad_(False)

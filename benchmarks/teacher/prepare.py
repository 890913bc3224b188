"""Makes what a training needs and nothing else: prepare.py CORPUS OUT [--init-from MODEL] [--layers 6 …].

OUT/model: a stock CamemBERT folder with a new vocabulary, at random or started from another encoder;
OUT/tokens.npz: every text of the corpus as token ids, `train` and `held_out` in one packed file.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from affinage.data.corpus import corpus_files, corpus_lines, is_held_out, spread
from affinage.data.pieces import parts_in
from affinage.data.tokens import TokenStore
from affinage.data.vocabulary import train_unigram
from affinage.models.build import fresh_masked_lm
from affinage.models.checkpoint import load_masked_lm, load_tokenizer
from affinage.models.transfer import layer_map, transfer_
from affinage.recipe import StudentSpec, TokenizerSpec

log = logging.getLogger("prepare")
HELD_OUT = 0.005
"""Share of the lines that no training sees, chosen by the line itself."""


def main(corpus: Path, out: Path, *, init_from: str | None, layers: int, width: int, heads: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    files = corpus_files([corpus])
    pieces = TokenizerSpec(vocab_size=16_000, training_bytes=40_000_000)
    share = min(1.0, pieces.training_bytes / sum(len(line.encode()) for line in corpus_lines(files)))
    log.info("training the vocabulary on %.0f %% of the corpus", 100 * share)
    tokenizer = train_unigram(spread(corpus_lines(files), share), pieces, max_length=512)
    spec = StudentSpec(
        architecture="camembert",
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_length=512,
        dropout=0.1,
    )
    torch.manual_seed(0)
    if init_from is None:
        model = fresh_masked_lm(spec, tokenizer)
    else:
        old, has_head = load_masked_lm(init_from, allow_fresh_head=True)
        model = fresh_masked_lm(spec, tokenizer, like=old.config)
        parts = parts_in(load_tokenizer(init_from), tokenizer)
        depths = layer_map("spread", old.config.num_hidden_layers, layers)
        transfer_(old, model, layers=depths, pieces=parts, head=has_head)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    log.info("tokenising")
    parts_of = {}
    for part, held in (("train", False), ("held_out", True)):
        lines = (line for line in corpus_lines(files) if is_held_out(line, HELD_OUT) is held)
        store = TokenStore.build(lines, tokenizer, out / f"{part}-store")
        parts_of[f"{part}_ids"] = np.asarray(store.ids, dtype=np.uint16)
        parts_of[f"{part}_starts"] = store.starts
        log.info("%s: %s texts, %s tokens", part, f"{len(store):,}", f"{store.tokens:,}")
    np.savez(out / "tokens.npz", **parts_of)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--init-from")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    given = parser.parse_args()
    main(
        given.corpus,
        given.out,
        init_from=given.init_from,
        layers=given.layers,
        width=given.width,
        heads=given.heads,
    )

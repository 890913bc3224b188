"""Makes what a training needs and nothing else: prepare.py CORPUS OUT [--init-from MODEL] [--layers 6 …].

OUT/model: a stock CamemBERT folder with a new vocabulary, at random or started from another encoder;
OUT/tokens.npz: every text of the corpus as token ids, `train` and `held_out` in one packed file.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from affinage.data.corpus import corpus_files, corpus_lines, is_held_out
from affinage.data.tokens import TokenStore
from affinage.data.vocabulary import train_vocabulary
from affinage.recipe import StudentSpec, TokenizerSpec
from affinage.workflows.pretrain import initial_model, read_source

log = logging.getLogger("prepare")
HELD_OUT = 0.005
"""Share of the lines that no training sees, chosen by the line itself."""


def main(corpus: Path, out: Path, *, init_from: str | None, layers: int, width: int, heads: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    files = corpus_files([corpus])
    pieces = TokenizerSpec(vocab_size=16_000, training_bytes=40_000_000)
    tokenizer = train_vocabulary(files, pieces, max_length=512)
    spec = StudentSpec(
        architecture="camembert",
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_length=512,
        dropout=0.1,
        tokenizer=pieces,
    )
    torch.manual_seed(0)
    source = None if init_from is None else read_source(init_from)
    model = initial_model(spec, tokenizer, source)
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

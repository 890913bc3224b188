"""How a model does on lines that neither teacher nor student was trained on: held_out.py MODEL CORPUS > FILE.

The lines are those that `affinage distil --set held_out=0.001` keeps out (prepare.py keeps these and more), each once.
Tokens to guess as in training (15 %, 80/10/10, seed 1), rows of up to 256 tokens, mean over the tokens to guess;
running text apart from the part-of-speech-tagged plays that the first corpus held by oversight.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from corpus import is_tagged
from train import Encoder, Pieces, mask
from transformers import AutoModelForMaskedLM, AutoTokenizer

from affinage.data.corpus import corpus_files, corpus_lines, is_held_out
from affinage.data.tokens import TokenStore
from affinage.evaluation.pseudo_perplexity import pseudo_perplexity


def main(folder: Path, corpus: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stock = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    model = Encoder(stock)
    lines = list(dict.fromkeys(line for line in corpus_lines(corpus_files([corpus])) if is_held_out(line, 0.001)))
    found: dict[str, object] = {}
    for name, wanted in (("running_text", False), ("tagged_plays", True)):
        chosen = [line for line in lines if is_tagged(line) == wanted]
        if not chosen:
            continue
        with TemporaryDirectory() as aside:
            store = TokenStore.build(chosen, tokenizer, Path(aside) / "store")
            perplexity = pseudo_perplexity(stock, tokenizer, store)
        ids = tokenizer(chosen, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        starts = np.cumsum([0, *map(len, ids)])
        special = {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id}
        pieces = Pieces(np.concatenate(ids), starts, max_length=256, **special)
        total = guesses = 0.0
        for number, batch in enumerate(pieces.batches(1024, 1)):
            rng = np.random.default_rng((1, number))
            inputs = mask(pieces.rows(batch), 0.15, tokenizer.mask_token_id, len(tokenizer), rng)
            with torch.no_grad():
                total += model(*map(torch.from_numpy, inputs)).item()
            guesses += inputs[2].size
        mlm = round(total / guesses, 4)
        found[name] = {"lines": len(chosen), "guesses": int(guesses), "mlm": mlm, "pseudo_perplexity": perplexity}
    json.dump(found, sys.stdout)
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

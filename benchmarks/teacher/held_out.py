"""The loss of the finished teacher on the lines that prepare.py held out: held_out.py MODEL PREPARED > held_out.json.

Tokens to guess as in training (15 %, 80/10/10, seed 1), rows of up to 256 tokens, mean over the tokens to guess;
running text apart from the part-of-speech-tagged plays that the first corpus held by oversight.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from corpus import is_tagged
from train import Encoder, Pieces, mask
from transformers import AutoModelForMaskedLM, AutoTokenizer


def main(folder: Path, prepared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Encoder(AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32))
    packed = np.load(prepared / "tokens.npz")
    lines = np.split(packed["held_out_ids"], packed["held_out_starts"][1:-1])
    tagged = [is_tagged(tokenizer.decode(line[:600])) for line in lines]
    found = {}
    for name, wanted in (("running_text", False), ("tagged_plays", True)):
        chosen = [line for line, is_one in zip(lines, tagged, strict=True) if is_one == wanted]
        if not chosen:
            continue
        starts = np.cumsum([0, *map(len, chosen)])
        special = {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id}
        pieces = Pieces(np.concatenate(chosen), starts, max_length=256, **special)
        total = guesses = 0.0
        for number, batch in enumerate(pieces.batches(1024, 1)):
            rng = np.random.default_rng((1, number))
            inputs = mask(pieces.rows(batch), 0.15, tokenizer.mask_token_id, len(tokenizer), rng)
            with torch.no_grad():
                total += model(*map(torch.from_numpy, inputs)).item()
            guesses += inputs[2].size
        found[name] = {"lines": len(chosen), "guesses": int(guesses), "mlm": round(total / guesses, 4)}
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

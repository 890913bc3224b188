"""Saved models in an environment that has never heard of affinage: the same token ids and the same logits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affinage.data.encoding import encode_pairs, encode_texts
from affinage.models.checkpoint import load_masked_lm, load_task_model, load_tokenizer
from affinage.runtime.load import load
from tiny import SENTENCES, tiny_tokenizer

# `-I` leaves out the working folder and PYTHONPATH; the finder stands before the one that finds an editable install.
STRANGER = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "affinage":
            raise ModuleNotFoundError("No module named 'affinage'", name="affinage")

sys.meta_path.insert(0, Blocked())
try:
    import affinage
except ModuleNotFoundError:
    pass
else:
    sys.exit("affinage can be imported")

import numpy as np, torch, transformers

models, texts, seconds, out = json.load(sys.stdin)
found = {}
for name, (folder, auto_class) in models.items():
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, auto_class).from_pretrained(folder, dtype=torch.float32)
    for i, (first, second) in enumerate(zip(texts, seconds)):
        inputs = tokenizer(first, second, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs)
        for key in ("logits", "start_logits", "end_logits"):
            if key in outputs:
                found[f"{name}/{i}/{key}"] = outputs[key][0].numpy()
        found[f"{name}/{i}/ids"] = inputs["input_ids"][0].numpy()
np.savez(out, **found)
assert not [name for name in sys.modules if name.startswith("affinage")]
"""

CLASSES = {
    "teacher": "AutoModelForMaskedLM",
    "student": "AutoModelForMaskedLM",
    "sentiment": "AutoModelForSequenceClassification",
    "nli": "AutoModelForSequenceClassification",
    "ner": "AutoModelForTokenClassification",
    "qa": "AutoModelForQuestionAnswering",
}
KINDS: dict[str, Any] = {"sentiment": "sequence", "nli": "pair", "ner": "token", "qa": "span"}
ODD = "L’été dernier\u00a0: Zoé\tœuvre — 12\u202f000 €, c'est «\u00a0trop\u00a0» !"
TEXTS = [*SENTENCES[:6], ODD, "Le <mask> du Jura."]
SECONDS = [None, None, None, *SENTENCES[7:10], None, None]


@pytest.fixture(scope="session")
def folders(teacher: Path, student: Path, tuned: dict[str, Path]) -> dict[str, Path]:
    return {"teacher": teacher, "student": student, **tuned}


@pytest.fixture(scope="session")
def elsewhere(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray[Any, Any]]:
    """What stock transformers says in a process that cannot import affinage."""
    out = tmp_path_factory.mktemp("elsewhere") / "logits.npz"
    models = {name: (str(folder), CLASSES[name]) for name, folder in folders.items()}
    asked = json.dumps([models, TEXTS, SECONDS, str(out)])
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error::FutureWarning", "-c", STRANGER],
        input=asked,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=out.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


@pytest.mark.parametrize("name", CLASSES)
def test_token_ids(name: str, folders: dict[str, Path], elsewhere: dict[str, np.ndarray[Any, Any]]) -> None:
    tokenizer = load_tokenizer(folders[name])
    backend = tokenizer.backend_tokenizer
    for i, (first, second) in enumerate(zip(TEXTS, SECONDS, strict=True)):
        if second is None:
            (row,) = encode_texts(backend, [first], max_length=512)
        else:
            (row,) = encode_pairs(backend, [(first, second)], max_length=512)
        assert row.input_ids.tolist() == elsewhere[f"{name}/{i}/ids"].tolist()


@pytest.mark.parametrize("name", CLASSES)
def test_logits(name: str, folders: dict[str, Path], elsewhere: dict[str, np.ndarray[Any, Any]]) -> None:
    model = load_task_model(folders[name], KINDS[name]) if name in KINDS else load_masked_lm(folders[name])[0]
    compared = 0
    for i in range(len(TEXTS)):
        ids = torch.from_numpy(elsewhere[f"{name}/{i}/ids"])[None]
        with torch.inference_mode():
            outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        for key in ("logits", "start_logits", "end_logits"):
            if key in outputs:
                theirs = elsewhere[f"{name}/{i}/{key}"]
                np.testing.assert_allclose(outputs[key][0].numpy(), theirs, rtol=0, atol=1e-6)
                assert theirs.std() > 0
                compared += 1
    assert compared == len(TEXTS) * (2 if name == "qa" else 1)


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    found: np.ndarray[Any, Any] = powers / powers.sum()
    return found


def test_what_affinage_predicts(folders: dict[str, Path], elsewhere: dict[str, np.ndarray[Any, Any]]) -> None:
    """The answers of `affinage.load` are those of the stranger's logits."""
    for i, (text, second) in enumerate(zip(TEXTS, SECONDS, strict=True)):
        name, asked = ("sentiment", text) if second is None else ("nli", (text, second))
        predictor = load(folders[name])
        expected = dict(zip(predictor.labels, softmax(elsewhere[f"{name}/{i}/logits"]), strict=True))
        result = predictor.predict([asked])[0]
        assert result["score"] == pytest.approx(expected[result["label"]], abs=1e-6)
        assert result["score"] == pytest.approx(max(expected.values()), abs=1e-6)


def test_fill_mask(folders: dict[str, Path], elsewhere: dict[str, np.ndarray[Any, Any]]) -> None:
    last = len(TEXTS) - 1
    ids, logits = elsewhere[f"student/{last}/ids"], elsewhere[f"student/{last}/logits"]
    tokenizer = tiny_tokenizer("camembert")
    (place,) = np.flatnonzero(ids == tokenizer.mask_token_id)
    for candidate in load(folders["student"]).predict([TEXTS[last]], top_k=5)[0]["top"]:
        assert candidate["score"] == pytest.approx(softmax(logits[place])[candidate["token"]], abs=1e-6)

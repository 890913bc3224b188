"""Sentence embeddings: the mean of a stock encoder's states, or as a sentence-transformers folder says; exported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

import affinage
from affinage.cli.app import run
from affinage.errors import InputError
from affinage.runtime.onnx.build import onnx_graph
from onnx_graphs import graph_outputs, inputs_of, model_of
from tiny import FAMILIES, SENTENCES, save_tiny

TEXTS = list(SENTENCES)


def as_sentence_transformers(folder: Path, pooling: dict[str, Any], *, normalize: bool, **config: Any) -> Path:
    """The files that sentence-transformers puts beside a stock encoder's."""
    path = save_tiny(folder, "bert", "base", initializer_range=0.5)
    kinds = ["models.Transformer", "models.Pooling", *(["models.Normalize"] if normalize else [])]
    parts = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind.rpartition('.')[2]}" if i else "", "type": f"st.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(parts))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {}, **config}))
    return path


def stock_states(folder: Path, texts: list[str], length: int = 64) -> list[NDArray[np.float64]]:
    """The last hidden states (T, H) of each text, one at a time, by transformers alone."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [tokenizer(text, truncation=True, max_length=length, return_tensors="pt") for text in texts]
        return [model(**row).last_hidden_state[0].double().numpy() for row in rows]


def vectors(folder: Path, texts: list[str], **options: Any) -> NDArray[np.float64]:
    return np.array([one["embedding"] for one in affinage.load(folder).predict(texts, **options)])


def normalized(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


MODES: list[tuple[dict[str, Any], Any]] = [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, lambda states: states.mean(0)),
    ({"pooling_mode": "cls"}, lambda states: states[0]),
    ({"pooling_mode_max_tokens": True}, lambda states: states.max(0)),
]


@pytest.mark.parametrize(("pooling", "formula"), MODES)
def test_a_folder_of_sentence_transformers_is_done_as_it_says(
    pooling: dict[str, Any], formula: Any, tmp_path: Path
) -> None:
    folder = as_sentence_transformers(tmp_path, pooling, normalize=False)
    texts = [*TEXTS, " ".join(TEXTS)]
    wanted = np.stack([formula(states) for states in stock_states(folder, texts, length=32)])
    np.testing.assert_allclose(vectors(folder, texts), wanted, atol=2e-5)
    np.testing.assert_allclose(vectors(folder, texts, normalize=True), normalized(wanted), atol=2e-5)
    assert affinage.load(folder).predict(texts)[-1]["truncated"] is True
    made = affinage.export(folder, out=tmp_path / "out")
    assert made.kind == "embedding" and made.largest_difference < 1e-4
    np.testing.assert_allclose(vectors(tmp_path / "out", texts), wanted, atol=2e-5)
    affinage.export(folder, out=tmp_path / "int8", int8="dynamic", least_agreement=0.9)
    near = normalized(vectors(tmp_path / "int8", texts)) * normalized(wanted)
    assert near.sum(1).min() > 0.95


def test_normalized_where_the_folder_says_so_with_its_prompt(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    folder = as_sentence_transformers(tmp_path, {"pooling_mode": "mean"}, normalize=True, **settings)
    states = stock_states(folder, [f"query: {text}" for text in TEXTS], length=32)
    wanted = normalized(np.stack([one.mean(0) for one in states]))
    np.testing.assert_allclose(vectors(folder, TEXTS), wanted, atol=2e-5)
    affinage.export(folder, out=tmp_path / "out")
    np.testing.assert_allclose(vectors(tmp_path / "out", TEXTS), wanted, atol=2e-5)


@pytest.mark.parametrize("head", ["mlm", "base", "sequence"])
def test_any_encoder_can_be_asked_for_the_mean(head: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "camembert", head, initializer_range=0.5)
    wanted = normalized(np.stack([states.mean(0) for states in stock_states(folder, TEXTS)]))
    found = affinage.load(folder, task="embedding").predict(TEXTS)
    np.testing.assert_allclose([one["embedding"] for one in found], wanted, atol=2e-5)
    affinage.export(folder, out=tmp_path / "out", task="embedding")
    np.testing.assert_allclose(vectors(tmp_path / "out", TEXTS), wanted, atol=2e-5)


GRAPHS = [*((family, "mean") for family in FAMILIES), ("bert", "max"), ("bert", "cls"), ("deberta-v2", "max")]
TRACED = ("deberta-v2", "modernbert", "eurobert")


@pytest.mark.parametrize(
    ("family", "mode"),
    [pytest.param(*one, marks=[pytest.mark.slow] if one[0] in TRACED else []) for one in GRAPHS],
)
def test_graphs_of_every_family(family: str, mode: Any) -> None:
    model = model_of(family, "mlm")
    inputs = inputs_of(family)
    taken = {
        k: v for k, v in inputs.items() if k != "token_type_ids" or getattr(model.config, "type_vocab_size", 0) > 1
    }
    with torch.no_grad():
        states = model(**{k: torch.from_numpy(v) for k, v in taken.items()}, output_hidden_states=True).hidden_states[
            -1
        ]
    rows = zip(states.double().numpy(), inputs["attention_mask"].sum(1), strict=True)
    formula = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "cls": lambda x: x[0]}[mode]
    wanted = np.stack([formula(row[:length]) for row, length in rows])
    (found,) = graph_outputs(onnx_graph(model, pooling=mode), inputs)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_is_not_supported_is_said(tmp_path: Path) -> None:
    folder = as_sentence_transformers(tmp_path, {"pooling_mode_lasttoken": True}, normalize=False)
    with pytest.raises(InputError, match="its pooling is pooling_mode_lasttoken; supported: mean, cls, max"):
        affinage.load(folder)
    (folder / "modules.json").write_text(json.dumps([{"type": "models.Transformer"}, {"type": "models.Dense"}]))
    with pytest.raises(InputError, match=r"lists Transformer, Dense; supported are Transformer, Pooling and"):
        affinage.load(folder)
    with pytest.raises(InputError, match="ner needs a token one"):
        affinage.load(save_tiny(tmp_path, "camembert", "mlm"), task="ner")


def test_the_verb_shows_some_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = as_sentence_transformers(tmp_path, {"pooling_mode": "mean"}, normalize=True)
    assert run(["predict", str(folder), "Une cave sombre."]) == 0
    assert "(16 numbers)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "said", "message"),
    [
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "passage", "prompts": {"query": "q: "}},
            "'passage'",
        ),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(tmp_path: Path, file: str, said: Any, message: str) -> None:
    folder = as_sentence_transformers(tmp_path, {"pooling_mode_mean_tokens": True}, normalize=False)
    (folder / file).write_text(json.dumps(said))
    with pytest.raises(InputError, match=message):
        affinage.load(folder)

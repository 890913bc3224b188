"""OpenVINO reads the same graphs: PyTorch's logits for every built family and head, whatever the padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import affinage
from affinage.errors import InputError
from affinage.runtime.onnx.build import onnx_graph
from onnx_graphs import inputs_of, model_of, torch_outputs
from tiny import SENTENCES, save_tiny
from tiny_tasks import tuned_teacher

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

from affinage.runtime.openvino import WIDTHS, OpenVinoEngine

BUILT = ("bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra", "albert", "flaubert")


def outputs(model: Any, inputs: dict[str, Any], pad_id: int) -> list[Any]:
    engine = OpenVinoEngine(onnx_graph(model).SerializeToString(), pad_id=pad_id, threads=1)
    wide = engine.padded(inputs, pad_id)
    real = inputs["attention_mask"].astype(bool)
    found = engine.run({**wide, "positions": np.argwhere(real)})
    rows, length = real.shape
    if found[0].ndim > 1 and found[0].shape[:2] == wide["input_ids"].shape:
        return [a[:rows, :length][real] for a in found]
    return [a if a.shape[0] == real.sum() else a[:rows] for a in found]


@pytest.mark.parametrize("head", ["sequence", "token", "span", "mlm"])
@pytest.mark.parametrize("family", BUILT)
def test_the_models_logits(family: str, head: str) -> None:
    model = model_of(family, head)
    for texts in (1, 3):
        inputs = inputs_of(family, texts)
        for ours, theirs in zip(
            outputs(model, inputs, model.config.pad_token_id), torch_outputs(model, inputs), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_few_shapes_are_seen() -> None:
    engine = OpenVinoEngine(onnx_graph(model_of("bert", "token")).SerializeToString(), pad_id=0, threads=1)
    shapes = {
        engine.padded(
            {"input_ids": np.ones((rows, length), np.int64), "attention_mask": np.ones((rows, length), np.int64)}, 0
        )["attention_mask"].shape
        for rows in range(1, 33)
        for length in range(1, 513)
    }
    assert len(shapes) == 6 * len(WIDTHS)


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa"])
def test_the_same_answers_from_a_folder_and_from_a_model(task: str, tmp_path: Path) -> None:
    model = tuned_teacher(tmp_path, task, initializer_range=0.5, affinage_task=task)
    affinage.export(model, out=tmp_path / "out")
    texts: Any = list(SENTENCES)
    if task == "qa":
        texts = [{"question": "Qui ?", "context": text} for text in SENTENCES]
    wanted = affinage.load(tmp_path / "out").predict(texts)
    for source in (model, tmp_path / "out"):
        found = affinage.load(source, engine="openvino").predict(texts)
        for ours, theirs in zip(found, wanted, strict=True):
            ours, theirs = (one.get("entities", [one]) for one in (ours, theirs))
            assert [{**a, "score": 0} for a in ours] == [{**a, "score": 0} for a in theirs]
            assert [a["score"] for a in ours] == pytest.approx([a["score"] for a in theirs], abs=1e-4)


def test_no_row_is_padded_beyond_the_positions_of_the_model(tmp_path: Path) -> None:
    model = tuned_teacher(tmp_path, "sentiment", max_position_embeddings=41, affinage_task="sentiment")
    text = " ".join(SENTENCES)
    one, other = (affinage.load(model, engine=name).predict(text) for name in ("openvino", "torch"))
    assert one[0]["score"] == pytest.approx(other[0]["score"], abs=1e-5) and one[0]["truncated"]


def test_bfloat16_is_near(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "camembert", "mlm")
    affinage.export(model, out=tmp_path / "out", task="embedding")
    exact, near = (
        np.array(
            [
                one["embedding"]
                for one in affinage.load(tmp_path / "out", engine="openvino", dtype=d).predict(list(SENTENCES))
            ]
        )
        for d in ("float32", "bfloat16")
    )
    assert (exact * near).sum(1).min() > 0.99


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    affinage.export(tuned_teacher(tmp_path, "sentiment"), out=tmp_path / "out")
    (tmp_path / "out" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model.onnx' cannot be loaded by OpenVINO"):
        affinage.load(tmp_path / "out", engine="openvino")
    with pytest.raises(InputError, match="its engines are onnx and openvino"):
        affinage.load(tmp_path / "out", engine="torch")


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa"])
def test_a_folder_in_its_own_format(task: str, tmp_path: Path) -> None:
    model = tuned_teacher(tmp_path, task, initializer_range=0.5, affinage_task=task)
    made = affinage.export(model, out=tmp_path / "out", form="openvino")
    assert made.agreement > 0.999 and made.size_bytes > 0  # of random weights' labels a few lie within rounding
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.xml", "model.bin"} < names and "model.onnx" not in names
    texts: Any = list(SENTENCES)
    if task == "qa":
        texts = [{"question": "Qui ?", "context": text} for text in SENTENCES]
    wanted = affinage.load(model, engine="openvino").predict(texts)
    assert affinage.load(tmp_path / "out").predict(texts) == wanted
    with pytest.raises(InputError, match="its engine is openvino"):
        affinage.load(tmp_path / "out", engine="onnx")


def test_its_own_format_of_masked_words(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "roberta", "mlm")
    affinage.export(model, out=tmp_path / "out", form="openvino")
    word = affinage.load(tmp_path / "out").predict("Une <mask> sombre.")
    assert word == affinage.load(model, engine="openvino").predict("Une <mask> sombre.")


@pytest.mark.parametrize("task", ["sentiment", "ner"])
def test_integers_with_fixed_ranges_in_its_own_format(task: str, tmp_path: Path) -> None:
    """The same ranges and integers as in ONNX Runtime's operators: the same logits, up to a rounding here and there."""
    model = tuned_teacher(tmp_path, task, initializer_range=0.5, affinage_task=task)
    made = {
        form: affinage.export(model, out=tmp_path / form, form=form, int8="static", least_agreement=0)  # type: ignore[arg-type]
        for form in ("onnx", "openvino")
    }
    assert made["openvino"].int8 == "static"
    assert abs(made["openvino"].agreement - made["onnx"].agreement) < 0.1
    affinage.export(model, out=tmp_path / "whole", form="openvino")
    size, whole = ((tmp_path / name / "model.bin").stat().st_size for name in ("openvino", "whole"))
    assert size < 0.6 * whole  # norms and biases are a large part of a model so tiny
    ours, theirs = (affinage.load(tmp_path / form).predict(list(SENTENCES)) for form in ("openvino", "onnx"))
    for one, other in zip(ours, theirs, strict=True):
        one, other = (found.get("entities", [found]) for found in (one, other))
        assert [entity["score"] for entity in one] == pytest.approx([entity["score"] for entity in other], abs=0.05)


def test_ranges_found_at_every_run_are_not_its_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="take --int8 static"):
        affinage.export(tuned_teacher(tmp_path, "sentiment"), out=tmp_path / "out", form="openvino", int8="dynamic")
    assert not (tmp_path / "out").exists()

"""Exported folders: kept only where they answer as the model does, and read again without torch."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import affinage
from affinage.cli.app import run
from affinage.errors import CheckFailed, InputError
from affinage.runtime.onnx import build
from affinage.runtime.onnx.config import Parity
from affinage.runtime.onnx.parity import check, compare
from tiny import SENTENCES, save_tiny
from tiny_data import write_task
from tiny_tasks import tuned_teacher

LOUD = {"initializer_range": 0.5}
ASKED: dict[str, Any] = {
    "sentiment": list(SENTENCES),
    "nli": list(itertools.pairwise(SENTENCES)),
    "ner": [" ".join(SENTENCES[:4]), SENTENCES[5]],
    "qa": [{"question": "Qui a quitté Lyon ?", "context": " ".join(SENTENCES[:4])}],
    "topics": list(SENTENCES),
    "rating": list(SENTENCES),
}


def close(ours: Any, theirs: Any) -> bool:
    """Equal, numbers within rounding."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return bool(ours == theirs or (isinstance(ours, float) and abs(ours - theirs) < 1e-4))


@pytest.mark.parametrize("task", ASKED)
def test_an_exported_folder_answers_as_the_model(task: str, tmp_path: Path) -> None:
    model = tuned_teacher(tmp_path, task, **LOUD, affinage_task=task)
    made = affinage.export(model, out=tmp_path / "out")
    assert made.agreement > 0.999 and made.int8 == "none"
    assert made.largest_difference < 1e-4
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.onnx",
        "tokenizer.json",
    ]
    assert not list(tmp_path.glob("*.partial"))
    wanted = affinage.load(model).predict(ASKED[task], top_k=2)
    assert close(affinage.load(tmp_path / "out").predict(ASKED[task], top_k=2), wanted)


@pytest.mark.parametrize("architecture", ["camembert", "bert"])
def test_masked_words(architecture: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, architecture, "mlm", **LOUD)
    affinage.export(model, out=tmp_path / "out")
    texts = ["Claire a quitté <mask> pour travailler.", "Le petit <mask>é du village."]
    wanted = affinage.load(model).predict(texts, top_k=3)
    assert close(affinage.load(tmp_path / "out").predict(texts, top_k=3), wanted)


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    tuned_teacher(tmp_path, "sentiment", **LOUD, affinage_task="sentiment").rename("model")
    write_task(tmp_path / "reviews", "sentiment")
    line = ["export", "model", "--int8", "dynamic", "--data", "reviews", "--out", "small", "--least-agreement", "0.6"]
    assert run([*line, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "sequence" and shown["int8"] == "dynamic"
    assert shown["size_bytes"] == (tmp_path / "small" / "model.onnx").stat().st_size
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (config["labels"], config["task"], config["target"]) == (["negative", "positive"], "sentiment", "x86-vnni")
    assert config["parity"]["rows"] == shown["rows"]
    assert "dynamic, made for x86-vnni" in (tmp_path / "small" / "README.md").read_text()
    assert run(["predict", "small", "Une cave sombre.", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in ("negative", "positive")
    assert run(line) == 2
    assert "small' exists" in capsys.readouterr().err.replace('"', "'")
    assert run(["predict", "small", "Une cave.", "--task", "ner"]) == 2
    assert "is a sequence model (sentiment); ner needs a token one" in capsys.readouterr().err
    for wrong, said in (
        (["--format", "coreml"], "--format 'coreml': expected onnx, openvino"),
        (["--int8", "yes"], "--int8 'yes': expected none, dynamic, static"),
        (["--target", "riscv"], "--target 'riscv': expected x86-vnni, x86, arm64"),
    ):
        assert run(["export", "model", "--out", "other", *wrong]) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize(
    ("steps", "int8", "apart"),
    [
        (("svd:keep=0.5",), "none", 1e-4),
        (("share-layers", "k-means"), "none", 1e-4),
        (("svd:keep=0.5,parts=linears", "int8"), "dynamic", 0.1),
        (("int4:activations=dynamic",), "dynamic", 0.1),
    ],
)
def test_the_verb_takes_what_compress_wrote(
    steps: tuple[str, ...], int8: str, apart: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is stored: shared weights once, packed ones packed."""
    wide = {"hidden_size": 64, "intermediate_size": 128}
    model = tuned_teacher(tmp_path, "sentiment", **wide, affinage_task="sentiment")
    small, graph = tmp_path / "small", tmp_path / "graph"
    assert run(["compress", str(model), *(f"--with={step}" for step in steps), "--out", str(small), "--quiet"]) == 0
    capsys.readouterr()
    assert run(["export", str(small), "--out", str(graph), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["int8"] == json.loads((graph / "config.json").read_text())["int8"] == int8
    assert shown["largest_difference"] < apart and shown["agreement"] >= 0.95
    stored = (small / "compressed.safetensors").stat().st_size
    assert shown["size_bytes"] < stored + 60_000 < (model / "model.safetensors").stat().st_size
    texts = list(SENTENCES)
    ours, theirs = (affinage.load(folder).predict(texts) for folder in (graph, small))
    assert [one["label"] for one in ours] == [one["label"] for one in theirs]
    np.testing.assert_allclose([one["score"] for one in ours], [one["score"] for one in theirs], atol=apart)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_traced_graph_keeps_the_integers_of_its_model(form: Any, tmp_path: Path) -> None:
    model = tuned_teacher(tmp_path, "sentiment", "modernbert", affinage_task="sentiment", hidden_size=64)
    step = "int8-static" if form == "openvino" else "int8"
    affinage.compress(
        model,
        plan=affinage.Plan.of({"steps": [step]}),
        task="sentiment",
        data=write_task(tmp_path, "sentiment"),
        out=tmp_path / "small",
        quiet=True,
    )
    made = affinage.export(tmp_path / "small", out=tmp_path / "graph", form=form)
    assert made.int8 == ("static" if form == "openvino" else "dynamic") and made.agreement >= 0.95
    whole = affinage.export(model, out=tmp_path / "whole", form=form)
    assert made.size_bytes < whole.size_bytes - 100_000
    anew = affinage.export(model, out=tmp_path / "anew", int8="static", form=form)
    assert anew.int8 == "static" and anew.agreement >= 0.95 and anew.size_bytes < whole.size_bytes - 100_000


@pytest.mark.parametrize(("kind", "task"), [("static", "sentiment"), ("static", "ner"), ("dynamic", "ner")])
@pytest.mark.parametrize("target", ["x86-vnni", "x86"])
def test_int8_answers_are_near_and_a_quarter_of_the_size(kind: Any, task: str, target: Any, tmp_path: Path) -> None:
    model = tuned_teacher(tmp_path, task, hidden_size=64, intermediate_size=128, affinage_task=task)
    whole = affinage.export(model, out=tmp_path / "whole")
    made = affinage.export(model, out=tmp_path / "int8", int8=kind, target=target, least_agreement=0.8)
    assert (made.int8, made.rows) == (kind, whole.rows // 2 if kind == "static" else whole.rows)
    graph = onnx.load(tmp_path / "int8" / "model.onnx").graph
    integers = {
        one.name: numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8
    }
    maps = [array for name, array in integers.items() if "embeddings" not in name]
    assert max(int(np.abs(array.astype(int)).max()) for array in maps) == (63 if target == "x86" else 127)
    assert any("word_embeddings" in name for name in integers)
    whole_size = sum(numpy_helper.to_array(one).size for one in graph.initializer)
    assert sum(array.size for array in integers.values()) > 0.93 * whole_size
    ranges = {node.op_type for node in graph.node} & {"QuantizeLinear", "DynamicQuantizeLinear"}
    assert ranges == {"QuantizeLinear" if kind == "static" else "DynamicQuantizeLinear"}


def test_fixed_ranges_make_a_text_independent_of_its_neighbours(tmp_path: Path) -> None:
    model = tuned_teacher(tmp_path, "sentiment", **LOUD, affinage_task="sentiment")
    affinage.export(model, out=tmp_path / "static", int8="static", least_agreement=0.0)
    one = affinage.load(tmp_path / "static")
    alone = [one.predict(text)[0]["score"] for text in SENTENCES]
    assert [found["score"] for found in one.predict(list(SENTENCES))] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("row", [0, 1, 4])
def test_what_is_no_number_is_noticed_in_any_row(row: int) -> None:
    class Fixed:
        def __init__(self, broken: bool) -> None:
            self.broken = broken

        def logits(self, rows: Any, *, batch_size: int) -> Any:
            for i in range(len(rows)):
                yield i, (np.array([1.0, np.nan if self.broken and i == row else 0.0], np.float32),)

    found: Any = compare(Fixed(True), Fixed(False), [None] * 5, "sequence")  # type: ignore[arg-type,list-item]
    assert np.isnan(found.largest_difference)
    with pytest.raises(CheckFailed):
        check(found, int8=False)


def test_what_an_export_is_refused_leaves_nothing(tmp_path: Path) -> None:
    model, out = tuned_teacher(tmp_path, "sentiment", affinage_task="sentiment"), tmp_path / "out"
    one, masked = tmp_path / "one.jsonl", save_tiny(tmp_path / "m", "bert", "mlm")
    one.write_text('{"text": "Un film.", "label": 1}\n')
    small = tmp_path / "small"
    affinage.compress(model, plan=affinage.Plan.of({"steps": ["int8"]}), out=small, quiet=True)
    for of, settings, says in (
        (model, {"data": one, "int8": "static"}, "one row"),
        (model, {"data": tmp_path / "none"}, "none: does not exist"),
        (model, {"columns": {"text": "t"}}, "--column says how --data is read"),
        (model, {"target": "x86"}, "has none: add --int8"),
        (small, {"target": "x86"}, "reduce_range=true"),
        (masked, {"data": one}, "is a fill_mask model"),
    ):
        with pytest.raises(InputError, match=says):
            affinage.export(of, out=out, **settings)  # type: ignore[arg-type]
        assert not list(tmp_path.glob("out*"))


def test_a_graph_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tuned_teacher(tmp_path, "sentiment", **LOUD)
    right = build.onnx_graph

    def wrong(*given: Any, **settings: Any) -> onnx.ModelProto:
        graph = right(*given, **settings)
        norm = next(one for one in graph.graph.initializer if one.name.endswith("layer.1.output.LayerNorm.weight"))
        norm.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(norm) * np.float32(1.1), norm.name))
        return graph

    monkeypatch.setattr(build, "onnx_graph", wrong)
    with pytest.raises(CheckFailed, match=r"the graph's logits differ from the model's by up to .* nothing was kept"):
        affinage.export(model, out=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == [model.name]


@pytest.mark.parametrize(("largest", "agreement"), [(float("nan"), float("nan")), (1.0, 0.5)])
def test_what_is_refused(largest: float, agreement: float) -> None:
    parity = Parity(rows=3, largest_difference=largest, largest_logit=2.0, agreement=agreement)
    with pytest.raises(CheckFailed, match="differ"):
        check(parity, int8=False)
    with pytest.raises(CheckFailed, match=r"of the model's answers on 3 rows, fewer than 95.0%"):
        check(parity, int8=True)


def test_a_damaged_folder_is_one_clear_message(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    affinage.export(tuned_teacher(tmp_path, "sentiment"), out=folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "labels": 3}))
    with pytest.raises(InputError, match=r"config.json': labels: .*export the model again"):
        affinage.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model.onnx' cannot be loaded by ONNX Runtime"):
        affinage.load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError):
        affinage.load(folder)


def test_answers_need_neither_torch_nor_transformers(tmp_path: Path) -> None:
    affinage.export(tuned_teacher(tmp_path, "ner", **LOUD), out=tmp_path / "out")
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'onnx'): sys.modules[name] = None\n"
        f"import affinage\nprint(affinage.load({str(tmp_path / 'out')!r}).predict('Claire a quitté Lyon.'))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("[{'entities': ")


def test_an_exported_folder_is_no_model_to_go_on_with(tmp_path: Path) -> None:
    affinage.export(tuned_teacher(tmp_path, "sentiment"), out=tmp_path / "out")
    with pytest.raises(InputError, match="is an exported graph, for predict and serve; here give the model"):
        affinage.export(tmp_path / "out", out=tmp_path / "again")

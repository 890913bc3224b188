"""`benchmark` on tiny models of every kind: what is timed, said, refused and written."""

from pathlib import Path
from typing import Any

import pytest
import torch

import affinage
from affinage.errors import InputError
from affinage.report.provenance import provenance
from affinage.report.report import ModelEntry, Report
from affinage.runtime.forward import TorchForward
from affinage.runtime.fresh import FreshCost
from affinage.runtime.workload import mixed_lengths
from affinage.workflows import benchmark as module
from affinage.workflows.benchmark import benchmark
from affinage.workflows.benchmark_plan import distinct_names, plan
from tiny import save_tiny

FAST: dict[str, Any] = {"lengths": (8, 16), "threads": 1, "repeats": 2, "batch_size": 64, "quiet": True}


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load time and memory without starting Python anew."""
    monkeypatch.setattr(module, "fresh_cost", lambda *_, **__: FreshCost(0.5, 10**8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def models(folder: Path) -> list[Path]:
    return [
        save_tiny(folder, "camembert", "sequence"),
        save_tiny(folder, "roberta", "mlm", max_position_embeddings=514),
        save_tiny(folder, "bert", "base"),
        save_tiny(folder, "distilbert", "token"),
    ]


@pytest.mark.usefixtures("no_process")
def test_every_kind_of_model_is_timed_beside_the_first(models: list[Path]) -> None:
    before = torch.get_num_threads()
    report = affinage.benchmark(models, **FAST)
    assert torch.get_num_threads() == before
    names = [path.name for path in models]
    assert [model.name for model in report.models] == names
    cells = [(1, 8), (1, 16), (64, None)]
    assert [(row.batch, row.length, row.model) for row in report.latency] == [
        (*cell, name) for cell in cells for name in names
    ]
    assert [(s.batch, s.length, s.model, s.reference) for s in report.speedups] == [
        (*cell, name, names[0]) for cell in cells for name in names[1:]
    ]
    assert {(row.engine, row.threads) for row in report.latency} == {("torch fp32", 1)}
    assert [row.runs for row in report.latency] == [2] * 8 + [14] * 4  # two rounds of seven batches
    assert all(0 < row.p50_ms <= row.p95_ms and row.tokens_per_second > 0 for row in report.latency)
    assert all(0 < s.low <= s.ratio <= s.high for s in report.speedups)
    assert [cost.model for cost in report.costs] == names
    assert report.provenance.seed == 0
    assert [*report.provenance.data] == ["affinage/assets/benchmark/mixed_lengths.json, cut at 64 tokens"]
    assert Report.from_json(report.to_json()) == report


@pytest.mark.usefixtures("no_process")
def test_every_model_under_every_engine(models: list[Path]) -> None:
    engines = ["torch", "onnx", "onnx-int8"]
    report = benchmark(models[:2], engines=engines, **FAST)
    ways = [(model.name, way) for model in models[:2] for way in ("torch fp32", "onnx fp32", "onnx int8")]
    assert [(row.model, row.engine) for row in report.latency] == ways * 3
    assert [(s.model, s.engine) for s in report.speedups] == ways[1:] * 3
    assert {s.reference_engine for s in report.speedups} == {"torch fp32", None}
    assert all(row.p99_ms is not None and row.p95_ms <= row.p99_ms for row in report.latency)
    assert f"times as fast as {models[0].name} (torch fp32)" in report.to_markdown()
    assert [(cost.model, cost.engine) for cost in report.costs] == ways
    for wrong, said in (
        (["tensorrt"], "unknown engine 'tensorrt'"),
        (["torch", "torch-fp32"], "each once"),
        ([], "none"),
    ):
        with pytest.raises(InputError, match=said):
            benchmark(models[:1], engines=wrong, **FAST)


@pytest.mark.usefixtures("no_process")
def test_one_model_has_no_ratios(models: list[Path]) -> None:
    report = benchmark(models[1:2], **FAST)
    assert report.speedups == ()
    assert [*report.provenance.data] == ["affinage/assets/benchmark/mixed_lengths.json"]
    assert "times as fast" not in report.to_markdown()


def test_a_fresh_process_is_not_misled(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    (cost,) = benchmark(models[:1], **FAST).costs
    assert cost.load_seconds > 0
    assert 50 * 2**20 < cost.peak_memory_bytes < 4 * 2**30
    assert cost.joules_per_1000_texts is None or cost.joules_per_1000_texts > 0


def test_the_mixed_cell_is_the_committed_list(models: list[Path]) -> None:
    planned = plan(models[1:2], [8], batch_size=16)
    assert planned.texts == len(mixed_lengths())
    assert planned.mixed.tokens == sum(mixed_lengths())
    assert [len(batch.input_ids) for batch in planned.mixed.batches[0]] == [16] * 25
    assert [cell.tokens for cell in planned.cells] == [8]
    cut = plan(models[:2], [8], batch_size=16).mixed
    assert cut.tokens == sum(min(length, 64) for length in mixed_lengths())
    assert max(batch.input_ids.shape[1] for rows in cut.batches for batch in rows) == 64


def test_the_base_is_taken_from_the_models_own_report(tmp_path: Path, models: list[Path]) -> None:
    tuned = save_tiny(tmp_path, "camembert", "sequence")
    assert plan([tuned], [8], batch_size=16).entries[0].base is None
    entry = ModelEntry(name="x", path="x", parameters=1, layers=1, size_bytes=4, base="runs/teacher")
    where = provenance(command="affinage finetune …", seed=0, recipe_sha256=None, data={}, seconds=1.0)
    text = Report(command="finetune", models=(entry,), provenance=where).to_json()
    (tuned / "report.json").write_text(text, encoding="utf-8")
    assert plan([tuned], [8], batch_size=16).entries[0].base == "runs/teacher"
    (tuned / "report.json").write_text("{", encoding="utf-8")
    assert plan([tuned], [8], batch_size=16).entries[0].base is None


def test_models_that_share_a_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a/x", "b/x", "a/y"):
        (tmp_path / path).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert distinct_names(["a/x", "a/y/"]) == ("x", "y")
    assert distinct_names(["a/x", "b/x", "a/y"]) == ("a/x", "b/x", "y")
    assert distinct_names(["a/x", "a/x", "./a/x/"]) == ("x", "x (2)", "x (3)")
    assert distinct_names(["hub/x", "a/x"]) == ("hub/x", "a/x")
    assert distinct_names(["x", "a/x"]) == ("x", "a/x")
    monkeypatch.chdir(tmp_path / "a" / "x")
    assert distinct_names(["."]) == ("x",)


@pytest.mark.usefixtures("no_process")
def test_the_folder_is_whole_or_not_there(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "speed"
    report = benchmark(models[:2], out=out, **FAST)
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "report.md"]
    assert Report.from_json((out / "report.json").read_text(encoding="utf-8")) == report
    assert (out / "report.md").read_text(encoding="utf-8") == report.to_markdown()
    with pytest.raises(InputError, match="exists; choose another --out"):
        benchmark(models[:2], out=out, **FAST)
    again = benchmark(models[:1], out=out, overwrite=True, **FAST)
    assert Report.from_json((out / "report.json").read_text(encoding="utf-8")) == again

    def fail(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "interleave", fail)
    with pytest.raises(KeyboardInterrupt):
        benchmark(models[:1], out=tmp_path / "stopped", **FAST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed"]


def test_the_tables_show_every_figure_with_its_conditions(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, no_process: None
) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(module, "interleave", with_clock(module.interleave, lambda: float(next(ticks))))
    text = benchmark(models[:2], **FAST).to_markdown()
    first, other = models[0].name, models[1].name
    # The clock ticks once a second, whenever it is asked: every batch takes a second.
    second = "1000.00 | 1000.00 | 1000.00"
    assert f"| {first} | torch fp32 | 1 | 1 | 8 | {second} | 8 | 2 |  |" in text
    assert f"| {other} | torch fp32 | 1 | 1 | 16 | {second} | 16 | 2 | 1.00 (1.00 to 1.00) |" in text
    tokens = sum(min(length, 64) for length in mixed_lengths())
    assert f"| {other} | torch fp32 | 1 | 64 | mixed | {second} | {tokens / 7:,.0f} | 14 | 1.00" in text
    assert f"| {first} | torch fp32 | 0.50 | 100 |" in text
    assert f"times as fast as {first}" in text


def with_clock(interleave: Any, clock: Any) -> Any:
    return lambda *arguments, **settings: interleave(*arguments, **settings, clock=clock)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lengths": ()}, "lengths: give at least one"),
        ({"lengths": (2,)}, "lengths: 2 is too short"),
        ({"lengths": (0,)}, "lengths: expected a whole number of at least 1"),
        ({"lengths": (8, 8)}, "each may be given once"),
        (
            {"lengths": (16, 65, 128)},
            r"128 is too long: model 'camembert-sequence' takes at most 64 tokens, model 'bert-base' takes at most 64 "
            r"tokens, .*; choose others with --lengths 16",
        ),
        ({"lengths": (513,)}, r"model 'roberta-mlm' takes at most 512 tokens.*--lengths 64"),
        ({"threads": 0}, "threads: expected a whole number"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"repeats": 0}, "repeats: expected"),
        ({"seconds": 0}, "seconds: expected more than 0"),
        ({"seconds": float("nan")}, "seconds: expected more than 0"),
    ],
)
def test_what_cannot_be_used_is_refused_before_a_model_is_loaded(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(TorchForward, "load", None)
    with pytest.raises(InputError, match=said):
        benchmark(models, **FAST | changed)


def test_models_that_cannot_be_used_are_refused(models: list[Path], tmp_path: Path) -> None:
    for given, said in [
        ([], "at least one folder"),
        ("runs/x", "expected a list"),
        ([models[0], tmp_path / "none"], "there is no such folder"),
        ([models[0], tmp_path], "the folder holds no config.json"),
    ]:
        with pytest.raises(InputError, match=said):
            benchmark(given, **FAST)
    bare = save_tiny(tmp_path, "bert", "sequence")
    (bare / "model.safetensors").unlink()
    with pytest.raises(InputError, match="bert-sequence"):
        benchmark([models[0], bare], out=tmp_path / "out", **FAST)
    assert not list(tmp_path.glob("out*"))

"""`affinage compress --budget` end to end on a tiny model: the plan, its model, the frontier; what is refused."""

from html import unescape
from pathlib import Path

import pytest

import affinage.workflows.compress_search as workflow
from affinage.cli.app import run
from affinage.compression.plan import Plan
from affinage.compression.search import Effort
from affinage.compression.space import NONE, Slots
from affinage.errors import CheckFailed, InputError
from affinage.models.storage import COMPRESSED
from affinage.report.report import Report
from affinage.workflows.compress import compress
from affinage.workflows.compress_search import DATABASE, compress_to_budget
from tiny import save_tiny
from tiny_data import write_corpus, write_task
from tiny_tasks import tuned_teacher

SMALL = {"training.batch_size": 4, "training.row_length": 32, "training.evaluations": 2}
BASE = Plan.of({"steps": ["int8"], "recover": 2, "calibration": 8, "settings": SMALL})
FEW: Slots = {
    "maps": (NONE, "svd:keep=0.5,parts=linears"),
    "table": (NONE, "int8-embeddings"),
    "numbers": (NONE, "int8", "int4"),
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "slots_for", lambda **_: FEW)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tuned_teacher(tmp_path, "sentiment", "bert")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task(tmp_path / "data", "sentiment")


def test_a_budget_gives_a_plan_its_model_and_the_frontier(model: Path, data: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    asked = {"base": BASE, "task": "sentiment", "data": data, "quiet": True}
    with pytest.raises(CheckFailed, match="was not reached by any of 2 plans") as caught:
        compress_to_budget(model, budget="latency<=0.15x, size<=0.9x", out=out, effort=Effort(4, 2), **asked)
    assert "Nearest: " in str(caught.value) and "size 0." in str(caught.value) and "latency" in str(caught.value)
    nearest = Plan.load(tmp_path / "out.partial" / "nearest.yaml")
    tried = sorted((tmp_path / "out.partial" / "tried").iterdir())
    assert len(tried) == 2 and nearest.steps

    # Another budget goes on from what was tried.
    report = compress_to_budget(model, budget="size<=0.9x, drop<=100pt", out=out, effort=Effort(4, 2), **asked)
    assert not (tmp_path / "out.partial").exists() and (out / DATABASE).is_file()
    assert Report.from_json((out / "report.json").read_text()) == report
    first, *others = report.variants
    assert (first.name, first.reference, first.speedup, first.within) == ("uncompressed", True, 1.0, None)
    assert all(one.engine == first.engine == "onnxruntime" for one in others)
    assert all(one.memory_bytes and one.latency_ms and one.speedup_low and one.low is not None for one in others)
    (chosen,) = [one for one in others if one.chosen]
    assert chosen.within and chosen.score == max(one.score for one in others if one.within)
    plan = Plan.load(out / "plan.yaml")
    assert (
        chosen.name == plan.title and chosen.size_bytes == report.models[0].size_bytes == report.ledger[-1].size_bytes
    )
    assert {(s.model, s.split) for s in report.scores} >= {("compressed", "test"), ("uncompressed", "valid")}

    # The plan alone makes the same bytes.
    from affinage.workflows.compress import compress

    compress(model, plan=plan, out=again, task="sentiment", data=data, quiet=True)
    assert (out / COMPRESSED).read_bytes() == (again / COMPRESSED).read_bytes()

    # `affinage report` draws what was tried: every variant a row of the sortable table and a point.
    page = tmp_path / "page"
    assert run(["report", str(out), "--out", str(page)]) == 0
    read = Report.from_json((page / "report.json").read_text(encoding="utf-8"))
    assert read.variants == report.variants
    html = (page / "report.html").read_text(encoding="utf-8")
    table = html.partition('<table class="sortable">')[2].partition("</table>")[0]
    assert table.count("<tr") == 1 + len(report.variants)
    assert all(one.name in unescape(table) for one in report.variants) and "Frontier: sentiment" in html


def test_text_will_do_for_a_masked_language_model(tmp_path: Path) -> None:
    model, corpus = save_tiny(tmp_path / "model", "bert", "mlm"), write_corpus(tmp_path / "texts", lines=400)
    base = BASE.model_copy(update={"recover": 0, "settings": {"training.row_length": 32}})
    report = compress_to_budget(
        model, budget="size<=0.8x", base=base, out=tmp_path / "out", corpus=[corpus], effort=Effort(3, 1), quiet=True
    )
    assert report.variants[1].metric == "found words" and report.variants[1].chosen


def test_what_cannot_be_searched_is_said_first(model: Path, data: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    with pytest.raises(InputError, match="name a task and its rows"):
        compress_to_budget(model, budget="size<=0.5x", base=BASE, out=out)
    with pytest.raises(InputError, match="budget 'size<=2x'"):
        compress_to_budget(model, budget="size<=2x", base=BASE, out=out, task="sentiment", data=data)
    with pytest.raises(InputError, match="the database of the search cannot be used"):
        compress_to_budget(model, budget="size<=0.5x", base=BASE, out=out, task="sentiment", data=data, storage="no")
    for budget, nearest in (
        ("size<=1kB", r"0\.\d\d MB \(0\.\d+x\)"),
        ("latency<=0.01x", r"an estimated latency of [\d.]+ ms \(0\.\d+x\)"),
        ("memory<=1MB", r"\d+ MB in memory \([\d.]+x\)"),
    ):
        with pytest.raises(InputError, match=rf"cannot be reached: the nearest of 2 plans, .* has {nearest}; nothing"):
            compress_to_budget(
                model, budget=budget, base=BASE, out=out, task="sentiment", data=data, effort=Effort(2, 1)
            )
    kept = {path.name for path in tmp_path.rglob("*") if path not in before}
    assert "search.sqlite" in kept and not out.exists()  # what was looked at serves the next budget
    assert not {"tried", "model.safetensors"} & kept


def test_a_model_that_is_compressed_already_is_searched_by_what_still_fits(
    data: Path, model: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    compress(model, plan=Plan.of({"steps": ["int8"]}), out=packed, quiet=True)
    with pytest.raises(InputError, match="no method of the search fits this model"):
        compress_to_budget(packed, budget="size<=0.9x", base=BASE, out=tmp_path / "a", task="sentiment", data=data,
                           effort=Effort(2, 1))  # fmt: skip
    assert not (tmp_path / "a.partial").exists()


def test_workers_of_one_search_may_have_their_files_in_other_places() -> None:
    ours = {"model": "runs/a", "weights": "w", "data": {"here/train": "1", "here/valid": "2"}, "corpus": None}
    theirs = {"model": "b", "weights": "w", "data": {"there/train": "1", "there/valid": "2"}, "corpus": None}
    assert workflow._name(ours) == workflow._name(theirs) != workflow._name({**ours, "weights": "v"})

"""Runs on a streamed corpus: cut and resumed, in two processes, with shards that vanish, with a new vocabulary."""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import affinage.data.shards as shards
import affinage.workflows.corpus_stage as corpus_stage
from affinage.errors import DataError, InputError
from affinage.report.report import Report
from affinage.training.run_folder import RunFolder
from affinage.workflows.distil import distil
from affinage.workflows.pretrain import pretrain
from tiny import SENTENCES, save_tiny
from tiny_data import ON_TEXT, SHAPE, same_weights, settings

LINES = [f"{SENTENCES[i % 10]} {SENTENCES[(3 * i + 1) % 10]} {i}" for i in range(80)]
# About 18 rows a block: 128 rows are more than one pass, and steps end in the middle of blocks.
STREAMED = {
    **ON_TEXT,
    "block_tokens": "1000",
    "training.max_steps": "8",
    "training.evaluations": "4",
    "training.row_length": "64",
    "training.batch_size": "8",
    "training.gradient_accumulation_steps": "2",
}


def write_shards(folder: Path) -> Path:
    """Four shards: text, packed text, two tables."""
    folder.mkdir()
    parts = ["".join(f"{line}\n" for line in LINES[i::4]) for i in range(4)]
    (folder / "a.txt").write_text(parts[0], encoding="utf-8")
    (folder / "b.txt.gz").write_bytes(gzip.compress(parts[1].encode()))
    for name, part in (("c", parts[2]), ("d", parts[3])):
        pq.write_table(pa.table({"text": part.splitlines()}), folder / f"{name}.parquet", row_group_size=7)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The same shards as a URL."""
    write_shards(tmp_path / "to-upload")
    memory, root = fsspec.filesystem("memory"), f"/{tmp_path.name}"
    memory.put(f"{tmp_path / 'to-upload'}/", root, recursive=True)
    yield f"memory:/{root}"
    memory.rm(root, recursive=True)


class Act(TrainerCallback):
    """Does something at the end of a step."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act()


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Let the next runs call `act` at the end of `step`."""

    class Trainer(corpus_stage.SumTrainer):
        def __init__(self, *args: Any, callbacks: list[Any], **kwargs: Any) -> None:
            super().__init__(*args, callbacks=[*callbacks, Act(step, act)], **kwargs)

    monkeypatch.setattr(corpus_stage, "SumTrainer", Trainer)


def die() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [3, 7])
def test_an_interrupted_run_on_a_stream_resumes_to_the_same_weights(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Though every block that was on the disk is lost, and only what it needs is read again."""
    teacher = save_tiny(tmp_path)

    def run(out: str) -> Report:
        return distil(teacher, corpus=[store], out=tmp_path / out, overrides=STREAMED, quiet=True)

    whole = run("whole")
    with monkeypatch.context() as patch:
        at_step(patch, stop, die)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    tokens = tmp_path / "cut.partial" / "tokens"
    assert 1 <= len(list(tokens.glob("block-*"))) <= 3
    for block in tokens.glob("block-*"):
        shutil.rmtree(block)
    made: list[str] = []
    build = corpus_stage.TokenStore.build

    def counted(lines: Any, tokenizer: Any, folder: Path, **more: Any) -> Any:
        if not folder.exists():
            made.append(folder.name)
        return build(lines, tokenizer, folder, **more)

    with monkeypatch.context() as patch:
        patch.setattr(corpus_stage.TokenStore, "build", counted)
        resumed = run("cut")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert whole.training is not None and resumed.training is not None
    assert whole.training.held_out == resumed.training.held_out
    assert whole.training.tokens == resumed.training.tokens
    # 16 rows a step, checkpoints at 2, 4, 6: the blocks before them are not made again.
    assert sorted(set(made)) == sorted(made) and min(made) >= {3: "block-000001", 7: "block-000004"}[stop]
    assert list(whole.provenance.data) == [f"{store.replace('memory://', 'memory:///')}/a.txt and 3 more shards"]
    assert not list(tmp_path.glob("*.partial"))


def test_shards_that_vanish_stop_the_run_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "WAITS", (0.0, 0.0))
    teacher, corpus = save_tiny(tmp_path), write_shards(tmp_path / "corpus")

    def run(out: str) -> Report:
        return distil(teacher, corpus=[corpus], out=tmp_path / out, overrides=STREAMED, quiet=True)

    run("whole")
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: corpus.rename(tmp_path / "elsewhere"))
        with pytest.raises(DataError, match=r"corpus/.*: cannot be read, even after 3 attempts: .*; restore it"):
            run("cut")
    folder = RunFolder(tmp_path / "cut", tmp_path / "cut.partial", False)
    checkpoint = folder.last_checkpoint()
    assert checkpoint is not None and checkpoint.name != "checkpoint-8"
    (tmp_path / "elsewhere").rename(corpus)
    run("cut")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


def test_two_processes_read_one_stream(tmp_path: Path) -> None:
    """Blocks are shared, their rows dealt: the steps are those of one process with the whole batch."""
    teacher, corpus = save_tiny(tmp_path), write_shards(tmp_path / "corpus")
    common = STREAMED | {"training.precision": "fp32", "student.dropout": "0", "training.max_steps": "4"}
    alone = distil(teacher, corpus=[corpus], out=tmp_path / "one", overrides=common, quiet=True)
    arguments = [str(teacher), "--corpus", str(corpus), "--out", str(tmp_path / "two")]
    arguments += settings(common | {"training.batch_size": "4"})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run(
        [*launch, "-m", "affinage", "distil", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    together = Report.from_json(run.stdout)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-6)
    assert alone.training is not None and together.training is not None
    assert together.training.tokens == alone.training.tokens
    for name, value in alone.training.held_out.items():
        assert abs(together.training.held_out[name] - value) < 1e-4, name


def test_pre_training_learns_its_vocabulary_from_the_stream(tmp_path: Path, store: str) -> None:
    overrides = {**STREAMED, **SHAPE, "training.max_steps": "2", "training.evaluations": "1"}
    report = pretrain([f"{store}/*.parquet"], out=tmp_path / "out", overrides=overrides, quiet=True)
    assert report.training is not None and report.training.steps == 2
    assert 0 < report.training.tokens <= 2 * 2 * 8 * 64
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.safetensors", "tokenizer.json"}


def test_a_table_is_tokenised_whole_where_the_recipe_says_so(tmp_path: Path) -> None:
    corpus = write_shards(tmp_path / "corpus")
    overrides = {**ON_TEXT, "streaming": "false"}
    report = distil(save_tiny(tmp_path), corpus=[corpus], out=tmp_path / "out", overrides=overrides, quiet=True)
    assert sorted(report.provenance.data) == [str(path) for path in sorted(corpus.iterdir())]
    assert all(len(sha256) == 64 for sha256 in report.provenance.data.values())


def test_what_cannot_be_streamed_is_refused_and_nothing_left(tmp_path: Path) -> None:
    teacher, corpus = save_tiny(tmp_path), write_shards(tmp_path / "corpus")

    def refused(match: str, **more: str) -> None:
        with pytest.raises(InputError, match=match):
            distil(teacher, corpus=[corpus], out=tmp_path / "out", overrides={**STREAMED, **more}, quiet=True)
        assert not list(tmp_path.glob("out*"))

    refused("no known length: say how long to train with --max-steps N", **{"training.max_steps": "null"})
    refused("less than a batch of 8 rows of 64 tokens; give at least --set block_tokens=512", block_tokens="500")
    refused("nothing of the stream is held out; give another share", held_out="0.0000001")
    (corpus / "a.txt").write_bytes(b"\xff" * 9)
    refused(r"corpus/a\.txt:1: not UTF-8")

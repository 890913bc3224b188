"""Fine-tuning and evaluation end to end on tiny models, and every bad input before long work."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    TrainerCallback,
)

from affinage.errors import DataError, InputError
from affinage.models.checkpoint import load_model
from affinage.report.report import Report
from affinage.training.run_folder import RunFolder
from affinage.workflows.evaluate import evaluate
from affinage.workflows.finetune import finetune
from affinage.workflows.labelled_data import hold_out, training_data
from affinage.workflows.task_run import TaskRun
from shared_data import DATA, needs_shared_data
from tiny import ARCHITECTURES, SENTENCES, save_tiny
from tiny_data import same_weights

STOCK: dict[str, Any] = {
    "sentiment": AutoModelForSequenceClassification,
    "nli": AutoModelForSequenceClassification,
    "ner": AutoModelForTokenClassification,
    "qa": AutoModelForQuestionAnswering,
}
OVERRIDES = {
    "training.max_steps": "3",
    "training.batch_size": "4",
    "training.row_length": "48",
    "training.precision": "fp32",
    "training.evaluations": "2",
}


def rows_of(task: str) -> list[dict[str, Any]]:
    """Thirty rows made of the tests' own sentences; some are longer than a row of the model."""
    rows: list[dict[str, Any]] = []
    for i in range(30):
        text = " ".join(SENTENCES[i % 10 :][: 1 + i % 3]) + f" {i}"
        other = SENTENCES[(i + 3) % 10]
        words = text.split()
        if task == "sentiment":
            rows.append({"text": text, "label": i % 2})
        elif task == "nli":
            rows.append(
                {"premise": text, "hypothesis": other, "label": ["entailment", "neutral", "contradiction"][i % 3]}
            )
        elif task == "ner":
            rows.append({"tokens": words, "tags": ["B-LOC" if w[0].isupper() else "O" for w in words]})
        else:
            answer = {"text": [words[1]], "answer_start": [text.index(words[1])]}
            rows.append({"id": str(i), "question": "Quoi donc ?", "context": text, "answers": answer})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def folder_of(path: Path, task: str) -> Path:
    """Train, valid and test parts of ten rows each."""
    rows = rows_of(task)
    for part, start in (("train", 0), ("dev", 10), ("test", 20)):
        write(path / f"{part}.jsonl.gz", rows[start : start + 10])
    return path


def tune(model: Path, task: str, data: Path, out: Path, **more: Any) -> Any:
    overrides = {**OVERRIDES, **more.pop("overrides", {})}
    return finetune(model, task=task, data=data, out=out, overrides=overrides, quiet=True, **more)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("task", STOCK)
def test_finetune_load_evaluate(tmp_path: Path, task: str, architecture: str) -> None:
    data = folder_of(tmp_path / "data", task)
    out = tmp_path / "out"
    report = tune(save_tiny(tmp_path, architecture, "mlm"), task, data, out)
    assert not (tmp_path / "out.partial").exists()
    assert {s.split for s in report.scores} == {"valid", "test"}
    assert all(0 <= s.low <= s.value <= s.high <= 1 and s.n == 10 for s in report.scores)
    assert report.training.steps == 3

    config = json.loads((out / "config.json").read_text())
    assert config["affinage_task"] == task
    if task == "sentiment":
        assert config["id2label"] == {"0": "negative", "1": "positive"}
    elif task == "nli":
        assert config["id2label"] == {"0": "entailment", "1": "neutral", "2": "contradiction"}
    elif task == "ner":
        assert config["id2label"] == {"0": "O", "1": "B-LOC", "2": "I-LOC"}
    model, loading = STOCK[task].from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    assert not loading["missing_keys"]
    encoded = AutoTokenizer.from_pretrained(out)("Le train de Lyon.", return_tensors="pt")
    with torch.no_grad():
        output = model(**{k: v for k, v in encoded.items() if k != "token_type_ids"})
    assert all(torch.isfinite(t).all() for t in output.values())

    for split in ("test", "valid"):
        again = evaluate(out, data=data, split=split, batch_size=3)
        assert again.scores == tuple(score for score in report.scores if score.split == split)
    saved = json.loads((out / "report.json").read_text())
    assert [s["value"] for s in saved["scores"]] == [s.value for s in report.scores]


@pytest.mark.parametrize("architecture", ["camembert", "distilbert"])
def test_the_dropout_asked_for(tmp_path: Path, architecture: str) -> None:
    """Also from the recipe that a run saves, which names every key."""
    data, model = folder_of(tmp_path / "data", "sentiment"), save_tiny(tmp_path, architecture, "mlm")
    tune(model, "sentiment", data, tmp_path / "as-it-comes")
    tune(model, "sentiment", data, tmp_path / "none", overrides={"student.dropout": "0"})
    again = tune(model, "sentiment", data, tmp_path / "again", recipe=tmp_path / "none" / "recipe.yaml")
    rates = {
        name: {m.p for m in STOCK["sentiment"].from_pretrained(tmp_path / name).base_model.modules() if _drops(m)}
        for name in ("as-it-comes", "none", "again")
    }
    assert rates["none"] == rates["again"] == {0.0}
    assert 0.0 not in rates["as-it-comes"]
    assert again.training.losses == Report.from_json((tmp_path / "none" / "report.json").read_text()).training.losses


def _drops(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Dropout)


class StopAfter(TrainerCallback):
    """Ctrl-C in the middle of a run, harder than the real one: nothing is saved on the way out."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [1, 4, 7])
@pytest.mark.parametrize("task", ["sentiment", "qa"])
def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path: Path, task: str, stop: int) -> None:
    data = folder_of(tmp_path / "data", task)
    model = save_tiny(tmp_path, "camembert", "mlm")
    # Three steps an epoch, checkpoints at 2, 4, 6, 8: some resume in the middle of an epoch, one at its end.
    overrides = {"training.max_steps": "8", "training.evaluations": "4"}
    whole = tune(model, task, data, tmp_path / "whole", overrides=overrides)
    with pytest.raises(KeyboardInterrupt):
        tune(model, task, data, tmp_path / "cut", overrides=overrides, callbacks=[StopAfter(stop)])
    assert not (tmp_path / "cut").exists()
    resumed = tune(model, task, data, tmp_path / "cut", overrides=overrides)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [s.value for s in whole.scores] == [s.value for s in resumed.scores]
    assert whole.training.tokens == resumed.training.tokens
    assert whole.training.losses == resumed.training.losses


def test_checkpoints_are_scored_in_the_precision_that_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training in bfloat16, before and after: near 300 it knows no odd number."""
    data, model = folder_of(tmp_path / "data", "sentiment"), save_tiny(tmp_path)
    ids, seen, halves = torch.arange(5, 15)[None], [], []

    def scored(network: Any) -> dict[str, float]:
        with torch.no_grad():
            ours, plain = network(input_ids=ids).logits, type(network).forward(network, input_ids=ids).logits
        seen.append(torch.equal(ours, plain))
        return {"accuracy": 0.5}

    class Watched(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            with torch.no_grad():
                ours = model(input_ids=ids).logits
            halves.append(not torch.equal(ours, type(model).forward(model, input_ids=ids).logits))

    monkeypatch.setattr(TaskRun, "scorer", lambda self: scored)
    overrides = {"training.precision": "bf16", "training.max_steps": "4", "student.dropout": "0"}
    tune(model, "sentiment", data, tmp_path / "out", overrides=overrides, callbacks=[Watched()])
    assert len(seen) > 1 and all(seen) and halves == [True] * 4


@pytest.mark.parametrize("stop", [5, 8])
def test_a_run_may_be_taken_up_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stop: int
) -> None:
    """Its best checkpoint so far lies beside the others, however they were called: in the middle, and at the end."""
    data, model = folder_of(tmp_path / "data", "sentiment"), save_tiny(tmp_path)
    overrides = {"training.max_steps": "8", "training.evaluations": "4", "training.learning_rate": "0.01"}
    before = load_model(model).get_input_embeddings().weight.detach()

    def nearness(network: Any) -> dict[str, float]:  # so that the first checkpoint is the best
        return {"accuracy": 1 / (1 + float((network.get_input_embeddings().weight.detach() - before).norm()))}

    def stopped(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskRun, "scorer", lambda self: nearness)
    tune(model, "sentiment", data, tmp_path / "whole", overrides=overrides)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    callbacks = [StopAfter(stop)] if stop < 8 else []
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            tune(model, "sentiment", data, Path("cut"), overrides=overrides, callbacks=callbacks)
    monkeypatch.chdir(tmp_path)
    tune(model, "sentiment", data, Path("sub/cut"), overrides=overrides)
    assert same_weights(tmp_path / "whole", tmp_path / "sub/cut")
    assert "does not exist anymore" not in caplog.text


def test_a_run_that_was_stopped_after_its_last_step_takes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = folder_of(tmp_path / "data", "sentiment"), save_tiny(tmp_path)
    overrides = {"training.max_steps": "4", "training.evaluations": "2"}
    whole = tune(model, "sentiment", data, tmp_path / "whole", overrides=overrides)

    def stopped(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            tune(model, "sentiment", data, tmp_path / "cut", overrides=overrides)
    resumed = tune(model, "sentiment", data, tmp_path / "cut", overrides=overrides)
    assert resumed.training.steps == whole.training.steps == 4
    assert [s.value for s in resumed.scores] == [s.value for s in whole.scores]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_file_is_parted_and_the_log_says_what_was_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write(tmp_path / "rows.jsonl", rows_of("sentiment"))
    with caplog.at_level(logging.INFO, logger="affinage"):
        report = tune(save_tiny(tmp_path), "sentiment", data, tmp_path / "out", overrides={"training.row_length": "16"})
    assert {s.split for s in report.scores} == {"held-out train"}
    assert "freshly initialised: negative, positive" in caplog.text
    assert "training texts are longer than 16 tokens: truncated" in caplog.text
    assert evaluate(tmp_path / "out", data=data).scores[0].baseline == 0.5


def test_it_learns(tmp_path: Path) -> None:
    rows = [{"text": "le train" if i % 2 else "la pluie", "label": i % 2} for i in range(40)]
    write(tmp_path / "data" / "train.jsonl", rows)
    write(tmp_path / "data" / "valid.jsonl", rows)
    overrides = {"training.max_steps": "40", "training.learning_rate": "0.01"}
    report = tune(save_tiny(tmp_path), "sentiment", tmp_path / "data", tmp_path / "out", overrides=overrides)
    assert report.scores[0].value == 1.0


def test_columns_and_other_labels(tmp_path: Path) -> None:
    rows = [{"avis": r["text"], "note": ["nul", "bof", "bien"][i % 3]} for i, r in enumerate(rows_of("sentiment"))]
    data = write(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out"
    tune(save_tiny(tmp_path), "sentiment", data, out, columns={"text": "avis", "label": "note"})
    assert json.loads((out / "config.json").read_text())["label2id"] == {"bien": 0, "bof": 1, "nul": 2}
    upper = write(tmp_path / "upper.jsonl", [{"text": "a", "label": "BIEN"}])
    assert evaluate(out, data=upper).scores[0].n == 1
    with pytest.raises(
        DataError, match=r"label 'positive' is unknown to model.*bien, bof, nul; the labels here are: negative, p"
    ):
        evaluate(out, data=write(tmp_path / "other.jsonl", rows_of("sentiment")[1::-1]))


@needs_shared_data
def test_holding_out_keeps_texts_together() -> None:
    data = DATA / "fr/nli/xnli/train.jsonl.gz"
    from affinage.data.examples import read_examples
    from affinage.data.task import load_task

    examples = read_examples(load_task("nli"), data)
    kept, held = hold_out(examples, 0.1)
    assert 0.07 < len(held) / len(examples) < 0.13
    assert not {e.first for e in kept} & {e.first for e in held}  # type: ignore[union-attr]
    again = hold_out(examples[::-1], 0.1)
    assert {e.where for e in held} == {e.where for e in again[1]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path)


def refused(
    tmp_path: Path, model: Path | str, match: str, *, rows: list[dict[str, Any]] | None = None, **more: Any
) -> None:
    """Fine-tuning on `rows` raises one InputError and leaves nothing behind."""
    data = write(tmp_path / "bad" / "train.jsonl", rows_of("sentiment") if rows is None else rows)
    settings = {"task": "sentiment", "data": data.parent, **more}
    with pytest.raises(InputError, match=match):
        tune(model, out=tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_bad_input(tmp_path: Path, model: Path) -> None:
    refused(tmp_path, model, "unknown task 'sentimant'. Did you mean 'sentiment'", task="sentimant")
    refused(tmp_path, model, "unknown recipe 'finetun'. Did you mean 'finetune'", recipe="finetun")
    refused(tmp_path, model, "is for distil with", recipe="distilcamembert")
    refused(tmp_path, model, "keeps the model's shape", overrides={"student.hidden_size": "8"})
    refused(tmp_path, model, "unknown key 'max_step'", overrides={"training.max_step": "3"})
    refused(tmp_path, tmp_path / "nowhere", "there is no such folder")
    refused(tmp_path, model, "does not exist", data=tmp_path / "nowhere")
    refused(tmp_path, model, "unknown field of task 'sentiment' 'txt'", columns={"txt": "avis"})
    refused(tmp_path, model, "no column 'avis'; columns there: text, label", columns={"text": "avis"})
    refused(tmp_path, model, r"train\.jsonl:1: is empty", rows=[])
    refused(tmp_path, model, "every row has the label 'positive'", rows=rows_of("sentiment")[1::2])
    refused(tmp_path, model, "1 rows are too few", rows=rows_of("sentiment")[:1])
    refused(tmp_path, model, r"train\.jsonl:1: 'text' is blank", rows=[{"text": "", "label": 1}])


def test_labels_of_the_valid_part_must_be_known(tmp_path: Path, model: Path) -> None:
    write(tmp_path / "data" / "train.jsonl", [{"tokens": ["Lyon"], "tags": ["B-LOC"]}] * 4)
    write(tmp_path / "data" / "valid.jsonl", [{"tokens": ["Claire"], "tags": ["B-PER"]}])
    with pytest.raises(
        DataError, match=r"valid\.jsonl:1: label 'B-PER' is unknown to the train part, which has: O, B-LOC"
    ):
        tune(model, "ner", tmp_path / "data", tmp_path / "out")
    (tmp_path / "data" / "train.jsonl").unlink()
    with pytest.raises(InputError, match="has no train part, only valid"):
        tune(model, "ner", tmp_path / "data", tmp_path / "out")


def test_output_that_exists_or_belongs_to_another_run(tmp_path: Path, model: Path) -> None:
    data = folder_of(tmp_path / "data", "sentiment")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists"):
        tune(model, "sentiment", data, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        tune(model, "sentiment", data, tmp_path / "cut", callbacks=[StopAfter(1)])
    with pytest.raises(InputError, match="another recipe"):
        tune(model, "sentiment", data, tmp_path / "cut", overrides={"training.seed": "1"})


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "camembert", "mlm", vocab_size=20)
    with pytest.raises(InputError, match="tokenizer makes ids up to"):
        tune(model, "sentiment", folder_of(tmp_path / "data", "sentiment"), tmp_path / "out")


def test_evaluate_bad_input(tmp_path: Path, model: Path) -> None:
    data = folder_of(tmp_path / "data", "sentiment")
    with pytest.raises(InputError, match="does not say its task"):
        evaluate(model, data=data)
    with pytest.raises(InputError, match="would start at random"):
        evaluate(model, task="sentiment", data=data)
    with pytest.raises(InputError, match="batch size 0"):
        evaluate(model, task="sentiment", data=data, batch_size=0)
    with pytest.raises(InputError, match="has no extra part; choose one with --split: train, valid, test"):
        evaluate(model, task="sentiment", data=data, split="extra")
    with pytest.raises(InputError, match="is one file"):
        evaluate(model, task="sentiment", data=data / "test.jsonl.gz", split="test")
    only = write(tmp_path / "only" / "train.jsonl", rows_of("sentiment"))
    with pytest.raises(InputError, match="choose one with --split: train"):
        evaluate(model, task="sentiment", data=only.parent)


def test_training_data_reads_every_part(tmp_path: Path) -> None:
    from affinage.data.task import load_task

    data = training_data(load_task("ner"), folder_of(tmp_path / "data", "ner"))
    assert (len(data.train), len(data.valid), len(data.test)) == (10, 10, 10)
    assert data.labels == ("O", "B-LOC", "I-LOC")
    assert data.valid_split == "valid"

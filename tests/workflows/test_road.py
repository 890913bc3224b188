"""The whole road on tiny data: pretrain, distil, finetune, evaluate, predict, and every way in and out of each."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, TrainerCallback

import affinage.workflows.corpus_stage as corpus_stage
from affinage.errors import InputError
from affinage.models.checkpoint import load_masked_lm
from affinage.recipe import Recipe
from affinage.report.report import Report
from affinage.workflows.distil import distil
from affinage.workflows.evaluate import evaluate
from affinage.workflows.predict import predict
from affinage.workflows.pretrain import pretrain
from tiny import ARCHITECTURES, SENTENCES, save_tiny
from tiny_data import ON_TEXT, SHAPE, TASKS, same_weights, write_corpus

KEEP_VOCABULARY = {**ON_TEXT, **{k: v for k, v in SHAPE.items() if "tokenizer" not in k}, "student.tokenizer": "null"}


def front_matter(folder: Path) -> dict[str, Any]:
    _, matter, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(matter)
    return found


def test_every_folder_is_whole(teacher: Path, student: Path, tuned: dict[str, Path]) -> None:
    for folder in (teacher, student, *tuned.values()):
        there = {path.name for path in folder.iterdir()}
        assert there >= {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
        assert there >= {"recipe.yaml", "report.json", "README.md", "runs"}
        assert list((folder / "runs").glob("events.out.tfevents.*"))
        assert not folder.with_name(folder.name + ".partial").exists()
        # Nothing that runs code when it is loaded.
        assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".py"}]
        text = (folder / "report.json").read_text(encoding="utf-8")
        report = Report.from_json(text)
        assert report.to_json() == text
        assert report.provenance.recipe_sha256 == Recipe.load(folder / "recipe.yaml").sha256
        assert report.provenance.data and all(len(sha256) == 64 for sha256 in report.provenance.data.values())
        assert report.models[0].size_bytes > 0
        matter = front_matter(folder)
        assert matter["library_name"] == "transformers"
        assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] != "CamembertTokenizer"


def test_the_reports_say_what_was_done(teacher: Path, student: Path, tuned: dict[str, Path]) -> None:
    made, distilled = (Report.from_json((f / "report.json").read_text(encoding="utf-8")) for f in (teacher, student))
    assert made.training is not None and distilled.training is not None
    assert set(made.training.losses) == {"loss", "mlm"}
    assert {"loss", "mlm", "pseudo_perplexity"} <= set(made.training.held_out)
    assert set(distilled.training.losses) == {"loss", "soft_kl", "cosine_distance", "mlm"}
    assert [(m.name, m.layers) for m in distilled.models] == [("student", 2), ("teacher", 4)]
    assert distilled.models[1].parameters == made.models[0].parameters > distilled.models[0].parameters
    assert made.training.steps == distilled.training.steps == 2
    for task, folder in tuned.items():
        scored = Report.from_json((folder / "report.json").read_text(encoding="utf-8"))
        assert {(s.task, s.split) for s in scored.scores} == {(task, "valid"), (task, "test")}


def test_the_student_has_every_other_layer(teacher: Path, student: Path) -> None:
    config = json.loads((student / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert config["affinage_layers"] == [0, 3]
    assert config["architectures"] == ["CamembertForMaskedLM"]
    assert (student / "tokenizer.json").read_bytes() == (teacher / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_and_predict(task: str, tuned: dict[str, Path], labelled: dict[str, Path]) -> None:
    report = evaluate(tuned[task], data=labelled[task])
    assert {s.n for s in report.scores} == {8}
    asked: Any = {
        "nli": [(SENTENCES[0], SENTENCES[1])],
        "qa": [{"question": "Qui ?", "context": SENTENCES[1]}],
    }.get(task, [SENTENCES[1]])
    keys = {"ner": {"entities"}, "qa": {"answer", "score", "start", "end"}}.get(task, {"label", "score"})
    assert set(predict(tuned[task], asked)[0]) - {"truncated"} == keys


def test_the_teacher_fills_masks(teacher: Path) -> None:
    found = predict(teacher, ["Le <mask> du village."], top_k=3)[0]
    assert len(found["top"]) == 3


# --- pretrain --from -------------------------------------------------------------------------------------------------


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without a change of weights: what is saved is what training would have started from."""
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)


@pytest.mark.usefixtures("frozen")
def test_from_the_same_vocabulary_starts_where_the_other_ended(tmp_path: Path, corpus: Path, teacher: Path) -> None:
    out = tmp_path / "out"
    pretrain([corpus], out=out, init_from=teacher, overrides=KEEP_VOCABULARY, quiet=True)
    before, after = load_file(teacher / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (out / "tokenizer.json").read_bytes() == (teacher / "tokenizer.json").read_bytes()


@pytest.mark.usefixtures("frozen")
def test_from_a_bert_with_a_new_vocabulary_and_more_layers(tmp_path: Path, corpus: Path) -> None:
    bert, out = save_tiny(tmp_path, "bert"), tmp_path / "out"
    shape = {**ON_TEXT, **SHAPE, "student.num_hidden_layers": "8"}
    pretrain([corpus], out=out, init_from=bert, overrides=shape, quiet=True)
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["type_vocab_size"]) == ("camembert", 8, 1)
    old, new = load_file(bert / "model.safetensors"), load_file(out / "model.safetensors")
    for layer, source in enumerate([0, 0, 1, 1, 2, 2, 3, 3]):
        ours, theirs = f"roberta.encoder.layer.{layer}.", f"bert.encoder.layer.{source}."
        copied = [name for name in new if name.startswith(ours)]
        assert len(copied) == 16
        assert all(torch.equal(new[name], old[name.replace(ours, theirs)]) for name in copied)
    # A piece that both vocabularies have ("de" inside WordPiece, "▁de" in Unigram) keeps its embedding.
    ids, old_ids = (AutoTokenizer.from_pretrained(f).get_vocab() for f in (out, bert))
    shared = [p for p in ids if p.startswith("▁") and p[1:] in old_ids]
    rows, old_rows = new["roberta.embeddings.word_embeddings.weight"], old["bert.embeddings.word_embeddings.weight"]
    assert len(shared) > 5
    assert all(torch.equal(rows[ids[p]], old_rows[old_ids[p[1:]]]) for p in shared)
    assert len(rows) == len(ids)
    AutoModelForMaskedLM.from_pretrained(out)


def test_from_trains(tmp_path: Path, corpus: Path) -> None:
    bert, out = save_tiny(tmp_path, "bert"), tmp_path / "out"
    report = pretrain([corpus], out=out, init_from=bert, overrides={**ON_TEXT, **SHAPE}, quiet=True)
    assert report.training is not None and report.training.steps == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_of_every_architecture_can_be_pre_trained(architecture: str, tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    pretrain([corpus], out=out, overrides={**ON_TEXT, **SHAPE, "student.architecture": architecture}, quiet=True)
    loaded(out)
    assert json.loads((out / "config.json").read_text())["model_type"] == architecture


# --- distil ----------------------------------------------------------------------------------------------------------


def loaded(folder: Path) -> None:
    """Stock transformers finds every weight."""
    model, info = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    inputs = AutoTokenizer.from_pretrained(folder)(SENTENCES[0], return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("recipe", ["distilcamembert", "distilcamembert-as-printed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_distil_every_architecture(architecture: str, recipe: str, tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    teacher = save_tiny(tmp_path, architecture)
    before = (teacher / "model.safetensors").read_bytes()
    report = distil(teacher, corpus=[corpus], out=out, recipe=recipe, overrides=ON_TEXT, quiet=True)
    loaded(out)
    assert (teacher / "model.safetensors").read_bytes() == before
    assert report.models[0].layers == 2
    assert report.training is not None
    assert all(torch.isfinite(torch.tensor(list(report.training.losses.values()))))
    assert not same_tensors(out, teacher)


def same_tensors(first: Path, second: Path) -> bool:
    ours, theirs = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_list_of_layers(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    overrides = {**ON_TEXT, "student.layers": "[3]"}
    report = distil(save_tiny(tmp_path), corpus=[corpus], out=out, overrides=overrides, quiet=True)
    assert report.models[0].layers == 1
    assert json.loads((out / "config.json").read_text())["affinage_layers"] == [3]


# --- interruption ----------------------------------------------------------------------------------------------------


class StopAfter(TrainerCallback):
    """A run that dies at the end of a step; what was not saved by then is lost."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the next runs die at the end of `step`."""

    class Trainer(corpus_stage.SumTrainer):
        def __init__(self, *args: Any, callbacks: list[Any], **kwargs: Any) -> None:
            super().__init__(*args, callbacks=[*callbacks, StopAfter(step)], **kwargs)

    monkeypatch.setattr(corpus_stage, "SumTrainer", Trainer)


# Five steps an epoch, checkpoints at 2, 4, 6, 8: some resume in the middle of an epoch, one in the second epoch.
LONGER = {
    **ON_TEXT,
    "training.max_steps": "8",
    "training.evaluations": "4",
    "training.row_length": "64",
    "training.batch_size": "8",
    "training.gradient_accumulation_steps": "2",
}


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_an_interrupted_distillation_resumes_to_the_same_weights(
    tmp_path: Path, corpus: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    def run(out: str) -> Report:
        return distil(teacher, corpus=[corpus], out=tmp_path / out, overrides=LONGER, quiet=True)

    whole = run("whole")
    with monkeypatch.context() as patch:
        die_at(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    assert not (tmp_path / "cut").exists()
    assert bool(list((tmp_path / "cut.partial" / "checkpoints").iterdir())) == (stop > 1)
    resumed = run("cut")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert whole.training is not None and resumed.training is not None
    assert whole.training.held_out == resumed.training.held_out
    assert whole.training.tokens == resumed.training.tokens
    assert not (tmp_path / "cut.partial").exists()


def test_an_interrupted_pre_training_resumes_to_the_same_weights(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(out: str, **more: Any) -> Report:
        overrides = {**SHAPE, **LONGER, **more}
        return pretrain([corpus], out=tmp_path / out, overrides=overrides, quiet=True)

    run("whole")
    with monkeypatch.context() as patch:
        die_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    with pytest.raises(InputError, match=r"cut\.partial' holds an unfinished run with another recipe; .* --out"):
        run("cut", **{"training.seed": "1"})
    (corpus / "more.txt").write_text("Une phrase de plus.\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds an unfinished run with another corpus"):
        run("cut")
    (corpus / "more.txt").unlink()
    run("cut")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


def test_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, corpus: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    def run(out: str) -> Report:
        return distil(teacher, corpus=[corpus], out=tmp_path / out, overrides=LONGER, quiet=True)

    run("whole")
    with monkeypatch.context() as patch:
        die_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    newest = tmp_path / "cut.partial" / "checkpoints" / "checkpoint-4"
    (newest / "trainer_state.json").write_text('{"epoch"', encoding="utf-8")
    run("cut")
    assert "checkpoint-4/trainer_state.json' has 8 bytes" in caplog.text
    assert "the run goes on from checkpoint-2" in caplog.text
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


# --- bad input: one message, before the work, and nothing left behind ------------------------------------------------


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.name.startswith("out")]


def refused_pretrain(folder: Path, corpus: Path, match: str, overrides: dict[str, str], **more: Any) -> None:
    with pytest.raises(InputError, match=match):
        pretrain([corpus], out=folder / "out", overrides={**ON_TEXT, **SHAPE, **overrides}, quiet=True, **more)
    assert nothing_left(folder)


def test_pretrain_refuses(tmp_path: Path, corpus: Path, teacher: Path) -> None:
    def refused(match: str, overrides: dict[str, str] | None = None, **more: Any) -> None:
        refused_pretrain(tmp_path, corpus, match, overrides or {}, **more)

    wider = {"student.hidden_size": "32"}
    refused("student.hidden_size 32 differs from its 16; add --set student.hidden_size=16", wider, init_from=teacher)
    refused("row_length 65 exceeds student.max_length 64", {"training.row_length": "65"})
    refused("hidden_size 15 is not a multiple of student.num_attention_heads 2", {"student.hidden_size": "15"})
    refused("missing: student.hidden_size", {"student.hidden_size": "null"})
    layers = {"student.layers": "[0, 1, 2]"}
    refused("student.layers lists 3 layers for a student of 4", layers, init_from=teacher)
    refused("is for distil", recipe="distilcamembert")
    refused("unknown recipe 'mini-camenbert'. Did you mean 'mini-camembert'", recipe="mini-camenbert")
    refused("unknown key 'batchsize'. Did you mean 'batch_size'", {"training.batchsize": "3"})
    refused("loss 'soft_kl' compares with a teacher", {"losses": "[{name: soft_kl}]"})
    refused("unknown loss 'mlmm'. Did you mean 'mlm'", {"losses": "[{name: mlmm}]"})
    refused("model '.*nowhere': there is no such folder", init_from=tmp_path / "nowhere")
    refused("no held-out text", {"held_out": "0.0000001"})
    refused("pieces of the 5000 asked for; give more text", {"student.tokenizer.vocab_size": "5000"})
    with pytest.raises(InputError, match="without --from there is no vocabulary"):
        pretrain([corpus], out=tmp_path / "out", overrides=KEEP_VOCABULARY, quiet=True)
    for sources, message in (
        ([tmp_path / "absent.txt"], "does not exist"),
        ([], "no corpus given"),
        ([tmp_path], "holds no .txt"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain(sources, out=tmp_path / "out", overrides={**ON_TEXT, **SHAPE}, quiet=True)
    assert nothing_left(tmp_path)


def test_distil_refuses(tmp_path: Path, corpus: Path, teacher: Path) -> None:
    def refused(match: str, overrides: dict[str, str] | None = None, **more: Any) -> None:
        given = {"teacher": teacher, "corpus": [corpus], "out": tmp_path / "out", **more}
        with pytest.raises(InputError, match=match):
            distil(given.pop("teacher"), overrides={**ON_TEXT, **(overrides or {})}, quiet=True, **given)
        assert nothing_left(tmp_path)

    refused("is for pretrain; distil takes one for distil", recipe="mini-camembert")
    refused("row_length 65 exceeds the 64 tokens that the teacher takes", {"training.row_length": "65"})
    refused("num_hidden_layers 5 exceeds the teacher's 4 layers", {"student.num_hidden_layers": "5"})
    refused(r"\[0, 4\] asks for teacher layers \[0, 4\]; the teacher has layers 0 to 3", {"student.layers": "[0, 4]"})
    refused("student.hidden_size 8 differs from the teacher's 16", {"student.hidden_size": "8"})
    refused("no masked language model head", teacher=save_tiny(tmp_path / "base", "camembert", "base"))
    refused("no masked language model head", teacher=save_tiny(tmp_path / "sequence", "bert", "sequence"))
    refused("its tokenizer makes ids up to", teacher=save_tiny(tmp_path / "small", "camembert", vocab_size=20))
    refused("does not exist", corpus=[tmp_path / "absent.txt"])
    (tmp_path / "empty.txt").touch()
    refused("is empty", corpus=[tmp_path / "empty.txt"])
    (tmp_path / "latin.txt").write_bytes("Une phrase.\nUn été.\n".encode("latin-1"))
    refused(r"latin\.txt:2: not UTF-8 \(byte 4 of the line\)", corpus=[tmp_path / "latin.txt"])


def test_out_must_not_exist_unless_it_is_to_be_replaced(tmp_path: Path, corpus: Path, teacher: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"out' exists; choose another --out, or replace it with --overwrite"):
        distil(teacher, corpus=[corpus], out=out, overrides=ON_TEXT, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    distil(teacher, corpus=[corpus], out=out, overrides=ON_TEXT, overwrite=True, quiet=True)
    assert not (out / "mine.txt").exists()
    assert load_masked_lm(out)[1]


@pytest.mark.parametrize("missing", ["mask_token", "cls_token", "sep_token"])
def test_a_tokenizer_without_a_special_token(tmp_path: Path, corpus: Path, missing: str) -> None:
    teacher = save_tiny(tmp_path, "bert")
    settings = json.loads((teacher / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings[missing]
    (teacher / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    overrides = {**KEEP_VOCABULARY, "student.architecture": "bert"}
    with pytest.raises(InputError, match=rf"tokenizer has no {missing[:-6]} token"):
        distil(teacher, corpus=[corpus], out=tmp_path / "out", overrides=ON_TEXT, quiet=True)
    with pytest.raises(InputError, match=rf"tokenizer has no {missing[:-6]} token"):
        pretrain([corpus], out=tmp_path / "out", init_from=teacher, overrides=overrides, quiet=True)
    assert nothing_left(tmp_path)


def test_bf16_is_refused_where_the_machine_has_none(
    tmp_path: Path, corpus: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = {"training.precision": "bf16"}
    refused_pretrain(tmp_path, corpus, "this machine does not compute in bfloat16; use auto or fp32", wanted)
    with pytest.raises(InputError, match="does not compute in bfloat16"):
        distil(teacher, corpus=[corpus], out=tmp_path / "out", overrides={**ON_TEXT, **wanted}, quiet=True)
    assert nothing_left(tmp_path)


def test_after_a_refusal_the_corrected_call_runs(tmp_path: Path) -> None:
    """The cure that the message names must not be refused as another run's work."""
    corpus = write_corpus(tmp_path / "corpus")
    refused_pretrain(tmp_path, corpus, "no held-out text", {"held_out": "0.0000001"})
    refused_pretrain(tmp_path, corpus, "pieces of the 5000 asked for", {"student.tokenizer.vocab_size": "5000"})
    pretrain([corpus], out=tmp_path / "out", overrides={**ON_TEXT, **SHAPE}, quiet=True)

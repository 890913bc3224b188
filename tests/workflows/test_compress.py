"""`affinage compress` end to end on tiny models: plans, recovery, roll-back, resume, and what is refused first."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

import affinage
from affinage.compression.base import Resources, Traits, compressors, may_follow
from affinage.compression.forms import check_forms, forms_of
from affinage.compression.plan import Plan, step_of
from affinage.compression.run import State
from affinage.compression.vocabulary.trimming import rows_of
from affinage.distillation.task_objective import TaskObjective
from affinage.errors import InputError
from affinage.evaluation.footprint import tensor_bytes
from affinage.models.checkpoint import load_tokenizer
from affinage.models.layout import layout_of
from affinage.models.modules.base import module_kinds
from affinage.models.replacing import linears, replace_module_
from affinage.models.storage import COMPRESSED, STOCK
from affinage.recipe import Recipe
from affinage.report.report import Report
from affinage.signals import Batch
from affinage.workflows import compress_ways
from affinage.workflows.benchmark import benchmark
from affinage.workflows.compress import compress
from affinage.workflows.compress_ways import WithTask
from affinage.workflows.evaluate import evaluate
from affinage.workflows.finetune import finetune
from affinage.workflows.inspect import inspect
from affinage.workflows.systems import gather
from affinage.workflows.task_run import TaskRun
from compressed_kinds import TwoMaps
from tiny import save_tiny
from tiny_data import STEPS, write_corpus, write_task
from tiny_tasks import tuned_teacher

SMALL = {"training.batch_size": 4, "training.row_length": 32, "training.evaluations": 2}


def copied(model: PreTrainedModel) -> PreTrainedModel:
    import copy

    return copy.deepcopy(model).eval()


@dataclass(frozen=True)
class Halve:
    """Every second map of the first layer becomes two maps of rank `rank`."""

    rank: int = 4
    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("decomposition", frozenset({"dense", "sparse"}), frozenset({"factored"}))

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made = copied(model)
        if self.rank > 8:
            raise InputError(f"rank {self.rank}: at most 8")
        for path in linears(made)[:2]:
            old = made.get_submodule(path)
            assert isinstance(old, nn.Linear)
            u, s, v = torch.linalg.svd(old.weight.detach())
            new = TwoMaps(old.in_features, self.rank, old.out_features)
            new.first.weight.data = v[: self.rank].clone()
            new.second.weight.data = (u[:, : self.rank] * s[: self.rank]).clone()
            new.second.bias.data = old.bias.detach().clone()
            replace_module_(made, path, new)
        return made


@dataclass(frozen=True)
class Zero:
    """The smaller half of the first map's weights become zero."""

    share: float = 0.5
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    traits: ClassVar[Traits] = Traits("pruning", frozenset({"dense", "sparse"}), frozenset({"sparse"}))

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        assert resources.calibration and resources.loss
        assert resources.loss(model, resources.calibration[0]).requires_grad
        made = copied(model)
        weight = made.get_submodule(linears(made)[0]).weight
        assert isinstance(weight, nn.Parameter)
        weight.data = weight.data * (weight.data.abs() > weight.data.abs().quantile(self.share))
        return made


@dataclass(frozen=True)
class Ruin:
    """All of the last layer is lost."""

    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    traits: ClassVar[Traits] = Traits("pruning", frozenset({"dense", "sparse", "factored"}))

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made = copied(model)
        assert resources.score is not None
        resources.score(made)
        head = made.get_submodule("classifier")
        for parameter in head.parameters():
            parameter.data.zero_()
        return made


@dataclass(frozen=True)
class Shrink:
    """While it trains, the first map's weights fade."""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("pruning", frozenset({"dense"}), frozenset({"sparse"}))

    def prepare(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        return copied(model)

    def on_step(self, model: PreTrainedModel, step: int, total: int) -> None:
        weight = model.get_submodule(linears(model)[0]).weight
        assert isinstance(weight, nn.Parameter)
        rows = len(weight) * (step + 1) // total
        weight.data[:rows] = 0

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        made = copied(model)
        self.on_step(made, 0, 1)
        return made


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module_kinds, "test-two-maps", TwoMaps)
    monkeypatch.setattr(compressors, "_entries", dict(compressors._entries))
    for name, method in {"t-halve": Halve, "t-zero": Zero, "t-ruin": Ruin, "t-shrink": Shrink}.items():
        compressors.register(name, source="made up")(method)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tuned_teacher(tmp_path, "sentiment", "bert")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task(tmp_path / "data", "sentiment")


def plan(*steps: str | Mapping[str, Any], **more: Any) -> Plan:
    return Plan.of({"steps": [step_of(s) if isinstance(s, str) else s for s in steps], "settings": SMALL, **more})


def test_a_plan_with_recovery_gives_a_model_that_every_verb_takes(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps = plan("svd:rank=3", "int8-embeddings", recover=2, calibration=8)
    report = compress(model, plan=steps, task="sentiment", data=data, out=out, quiet=True)
    assert [entry.title for entry in report.ledger] == ["uncompressed", "svd:rank=3", "int8-embeddings"]
    assert [entry.recovery_steps for entry in report.ledger] == [0, 2, 2]
    assert all(entry.score is not None and entry.latency_ms for entry in report.ledger)
    assert report.ledger[2].size_bytes < report.ledger[1].size_bytes < report.ledger[0].size_bytes
    assert report.training is not None and report.training.steps == 4
    assert {(s.model, s.split) for s in report.scores} == {
        (m, p) for m in ("compressed", "uncompressed") for p in ("valid", "test")
    }
    assert report.models[0].size_bytes == report.ledger[2].size_bytes
    assert (out / COMPRESSED).is_file() and not (out / STOCK).exists() and not (tmp_path / "out.partial").exists()
    assert Plan.load(out / "plan.yaml") == steps
    card = (out / "README.md").read_text()
    assert "affinage.load_model" in card and "svd:rank=3" in card and "| 1 | svd" in card
    assert Report.from_json((out / "report.json").read_text()) == report
    named = "bert-sequence with svd:rank=3 (2 steps) + int8-embeddings (2 steps)"
    assert list(gather([out]).scored["sentiment"]) == [named]

    # Every verb takes what was made.
    again = evaluate(out, data=data, split="test")
    ours = [s.value for s in report.scores if (s.model, s.split) == ("compressed", "test")]
    assert [s.value for s in again.scores] == ours
    assert inspect(out, length=16).parameters == report.models[0].parameters
    assert affinage.load(out).predict("a good film")[0]["label"] in ("negative", "positive")
    timed = benchmark([model, out], lengths=[16], repeats=1, seconds=0.01, quiet=True)
    assert [m.parameters for m in timed.models] == [report.models[1].parameters, report.models[0].parameters]
    tuned = finetune(out, task="sentiment", data=data, out=tmp_path / "tuned", overrides=STEPS, quiet=True)
    assert tuned.models[0].parameters == report.models[0].parameters
    assert (tmp_path / "tuned" / COMPRESSED).is_file()


def test_what_the_model_says_of_the_rows_is_computed_once_for_all_recoveries(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, logits_of = list[int](), TaskObjective._logits

    def counted(self: TaskObjective, batch: Batch) -> Tensor:
        said.append(len(batch.input_ids))
        return logits_of(self, batch)

    monkeypatch.setattr(TaskObjective, "_logits", counted)
    steps = plan("t-zero", {"t-zero": {"share": 0.75}}, recover=2)
    once = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "kept", quiet=True)
    seen = len(said)
    assert seen == 2
    monkeypatch.setattr(compress_ways, "logits_cache", lambda *args, **kwargs: None)
    anew = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "anew", quiet=True)
    assert len(said) - seen == 4 and [entry.score for entry in once.ledger] == [entry.score for entry in anew.ledger]
    ours, theirs = (load_file(tmp_path / name / STOCK) for name in ("kept", "anew"))
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=1e-5), name


def test_a_disk_without_room_for_what_the_model_says_stops_nothing(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("affinage.distillation.cache._reserve", full)
    steps = plan("t-zero", "t-halve", recover=2)
    report = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    assert report.training is not None and report.training.steps == 4
    told = [message for message in caplog.messages if message.endswith("computed in each recovery")]
    assert len(told) == 2 and "cannot be made: No space left on device; the model's answers" in told[0]


def test_a_trained_step_is_scored_once(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not trained, or not kept as it was trained, is scored when it is measured."""
    scored, scorer = list[float](), TaskRun.scorer

    def counted(self: TaskRun) -> Callable[[PreTrainedModel], dict[str, float]]:
        def score(model: PreTrainedModel) -> dict[str, float]:
            found = scorer(self)(model)
            scored.append(found["accuracy"])
            return found

        return score

    monkeypatch.setattr(TaskRun, "scorer", counted)
    steps = plan({"t-zero": {}, "recover": 3}, "t-halve")
    steps = steps.model_copy(update={"settings": {**SMALL, "training.evaluations": 1, "guards.no_progress": "off"}})
    report = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    assert [entry.score for entry in report.ledger] == scored
    assert evaluate(tmp_path / "out", data=data, split="valid").scores[0].value == scored[-1]


@pytest.mark.parametrize("rises", [False, True])
def test_recovery_that_makes_nothing_better_is_taken_back(
    rises: bool, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is scored before training, after each half of it, and before that as it was, uncompressed."""
    scores = iter((0.9, 0.5, 0.2, 0.6) if rises else (0.9, 0.5, 0.4, 0.45))
    monkeypatch.setattr(TaskRun, "scorer", lambda self: lambda model: {"accuracy": next(scores), "macro_f1": 0.0})
    steps = plan("t-halve", recover=4)
    report = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    assert [entry.score for entry in report.ledger] == [0.9, 0.6 if rises else 0.5]
    assert report.training is not None and report.training.steps == 4
    plain = compress(model, plan=plan("t-halve"), out=tmp_path / "plain", quiet=True)
    assert plain.models[0].size_bytes == report.models[0].size_bytes
    ours, theirs = (load_file(tmp_path / name / COMPRESSED) for name in ("out", "plain"))
    assert rises != all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_zeros_stay_zero_and_a_method_is_told_of_every_step(model: Path, data: Path, tmp_path: Path) -> None:
    steps = plan("t-shrink", {"t-zero": {"share": 0.75}, "recover": 3}, recover=4, calibration=4)
    compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    made = affinage.load_model(tmp_path / "out")
    assert not made.get_submodule(linears(made)[0]).weight.any()
    assert (tmp_path / "out" / STOCK).is_file()
    assert "AutoModelForSequenceClassification" in (tmp_path / "out" / "README.md").read_text()


def test_a_step_that_loses_too_much_is_undone(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The score says whether the head is lost; so it is certain what is undone, and what is not."""

    def score(self: WithTask, state: State) -> float:
        return 0.25 if state.model.get_parameter("classifier.weight").any() else 0.0

    monkeypatch.setattr(WithTask, "score", score)
    monkeypatch.setattr(compress_ways, "one_text_ms", lambda model: 1.0)
    kept = plan("t-zero", "t-halve")
    compress(model, plan=kept, task="sentiment", data=data, out=tmp_path / "without", quiet=True)
    steps = plan("t-zero", {"method": "t-ruin", "most_lost": 0.2}, {"method": "t-halve", "most_lost": 0.0})
    report = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "undone", quiet=True)
    assert [(entry.undone, entry.score) for entry in report.ledger] == [
        (False, 0.25), (False, 0.25), (True, 0.0), (False, 0.25)
    ]  # fmt: skip
    assert "step 2, 't-ruin', loses 0.2500 of the score, 0.2000 is allowed: undone" in caplog.messages
    before, after = (report.ledger[i] for i in (1, 3))
    assert after.parameters < before.parameters == report.ledger[2].parameters
    assert "| 2 | t-ruin" in report.to_markdown() and "undone" in report.to_markdown()
    for name in (COMPRESSED, "structure.json"):
        assert (tmp_path / "without" / name).read_bytes() == (tmp_path / "undone" / name).read_bytes(), name
    # With as much allowed as it loses it stays.
    steps = plan("t-zero", {"method": "t-ruin", "most_lost": 0.25}, "t-halve")
    report = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "ruined", quiet=True)
    assert not report.ledger[2].undone and report.ledger[3].score == 0.0
    assert not affinage.load_model(tmp_path / "ruined").get_parameter("classifier.weight").any()


def test_a_masked_language_model_is_measured_and_recovered_on_text(tmp_path: Path) -> None:
    corpus, model = write_corpus(tmp_path / "corpus"), save_tiny(tmp_path, "camembert")
    settings = {"training.batch_size": 4, "training.row_length": 32, "held_out": 0.2}
    steps = Plan.of({"steps": ["t-zero", "t-halve"], "recover": 2, "calibration": 8, "settings": settings})
    report = compress(model, plan=steps, corpus=[corpus], out=tmp_path / "out", quiet=True)
    assert all(entry.score is not None and 0 <= entry.score <= 1 for entry in report.ledger)
    assert report.training is not None and report.training.steps == 4 and not report.scores
    made = affinage.load_model(tmp_path / "out")
    assert layout_of(made.config).model_type == "camembert" and (tmp_path / "out" / COMPRESSED).is_file()


def test_recovery_from_another_teacher_learns_what_that_one_says(model: Path, data: Path, tmp_path: Path) -> None:
    """Soft labels alone, of a teacher that gives every text the same answer: that is what is learned."""
    sure = affinage.load_model(model)
    with torch.no_grad():
        sure.get_parameter("classifier.weight").zero_()
        sure.get_parameter("classifier.bias").copy_(torch.tensor([-9.0, 9.0]))
    sure.save_pretrained(tmp_path / "sure")
    load_tokenizer(model).save_pretrained(tmp_path / "sure")
    soft = {
        "losses": "[{name: task_soft_kl, weight: 1.0}]",
        "training.learning_rate": 0.05,
        "guards.no_progress": "off",
    }
    steps = plan("t-halve:rank=8", recover=30).model_copy(update={"settings": {**SMALL, **soft}})
    given: Any = {"plan": steps, "task": "sentiment", "data": data, "quiet": True}
    compress(model, out=tmp_path / "own", **given)
    compress(model, out=tmp_path / "other", teacher=tmp_path / "sure", **given)
    texts, second = ["Un délice.", "Une honte."], sure.config.id2label[1]
    own, other = (affinage.load(tmp_path / out).predict(texts, top_k=2) for out in ("own", "other"))
    for before, after in zip(own, other, strict=True):
        scores = [{one["label"]: one["score"] for one in said["top"]}[second] for said in (before, after)]
        assert scores[0] < 0.8 and scores[1] > 0.95, scores


def test_a_masked_language_model_recovers_from_another(tmp_path: Path) -> None:
    corpus, model = write_corpus(tmp_path / "corpus"), save_tiny(tmp_path, "camembert")
    teacher = save_tiny(tmp_path / "wider", "camembert", hidden_size=32)
    settings = {"training.batch_size": 4, "training.row_length": 32, "held_out": 0.2}
    steps = Plan.of({"steps": ["trim-vocabulary", "t-halve"], "recover": 2, "calibration": 8, "settings": settings})
    report = compress(model, plan=steps, corpus=[corpus], teacher=teacher, out=tmp_path / "out", quiet=True)
    assert report.training is not None and report.training.steps == 4


def test_a_teacher_that_cannot_teach_is_refused_and_leaves_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    other = tuned_teacher(tmp_path / "other", "sentiment", "camembert")
    untuned, on_task = save_tiny(tmp_path / "untuned", "bert"), {"task": "sentiment", "data": data}
    for steps, teacher, given, said in (
        (plan("t-halve", recover=2), other, on_task, "has another vocabulary than the teacher"),
        (plan("t-halve", recover=2), untuned, on_task, "is not fine-tuned for task 'sentiment'; name a tuned one"),
        (plan("t-halve"), model, on_task, "no step is followed by any; give --recover N"),
        (plan("t-halve", recover=2), model, {}, "there is nothing to train on"),
    ):
        with pytest.raises(InputError, match=said):
            compress(model, plan=steps, teacher=teacher, out=tmp_path / "out", quiet=True, **given)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_recovery_trains_at_the_rate_of_fine_tuning(model: Path, data: Path, tmp_path: Path) -> None:
    def rate(model: Path, out: str, **settings: float) -> float:
        steps = plan("t-halve", recover=1)
        steps = steps.model_copy(update={"settings": {**SMALL, **{f"training.{k}": v for k, v in settings.items()}}})
        compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / out, quiet=True)
        return Recipe.load(tmp_path / out / "recipe.yaml").stages[0].training.learning_rate

    assert not (model / "recipe.yaml").exists() and rate(model, "unknown") == 5e-5
    overrides = {**STEPS, "training.learning_rate": "7e-4"}
    finetune(model, task="sentiment", data=data, out=tmp_path / "tuned", overrides=overrides, quiet=True)
    assert rate(tmp_path / "tuned", "known") == 7e-4
    assert rate(tmp_path / "tuned", "asked", learning_rate=3e-4) == 3e-4


def test_steps_that_need_no_data_run_without(model: Path, tmp_path: Path) -> None:
    report = compress(model, plan=plan("t-halve"), out=tmp_path / "out", quiet=True)
    assert report.ledger[1].score is None and report.ledger[1].latency_ms
    assert "| 1 | t-halve" in report.to_markdown()


@pytest.mark.parametrize(
    ("steps", "more", "said"),
    [
        (["t-halve", "t-zero"], {}, "cannot come after step 1, 't-halve', which leaves weights factored"),
        (["t-halve", "t-zero"], {}, "put 't-zero' before 't-halve'"),
        (["t-halve", "t-halve"], {}, "leave one of the two out"),
        (["t-zero"], {}, "'t-zero', needs gradients"),
        (["t-halv"], {}, "Did you mean 't-halve'"),
        (["t-halve:rang=3"], {}, "unknown parameter 'rang'"),
        (["t-halve:rank=many"], {}, "rank: "),
        (["t-halve"], {"recover": 3}, "is followed by training: name a task"),
        (["t-halve"], {"most_lost": 0.1}, "of the score, and there is none"),
        (["t-shrink"], {}, "happens during training"),
        (["t-halve:rank=9"], {}, "rank 9: at most 8"),
        (["int8", "t-zero"], {}, "put 't-zero' before 'int8'"),
        ([{"method": "int8", "recover": 3}], {}, "which no gradient reaches"),
    ],
)
def test_what_cannot_run_is_refused_and_leaves_nothing(
    model: Path, tmp_path: Path, steps: list[Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        compress(model, plan=plan(*steps, **more), out=tmp_path / "out", quiet=True)
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("first", ["int8", "k-means", "share-layers", "prune-heads", "prune-magnitude", "svd:keep=0.5"])
def test_a_compressed_model_takes_only_steps_that_take_its_weights(
    model: Path, data: Path, tmp_path: Path, first: str
) -> None:
    """As they do within one plan."""
    made, given = tmp_path / "made", {"task": "sentiment", "data": data, "quiet": True}
    compress(model, plan=plan(first), out=made, **given)  # type: ignore[arg-type]
    forms = forms_of(affinage.load_model(made))
    assert forms and forms.keys() <= step_of(first).build().traits.leaves
    for name in ("albert", "prune-gradual", "int8", "prune-magnitude", "k-means", "int8-embeddings"):
        then, out = plan(name), tmp_path / "out"
        if may_follow(step_of(first).build().traits, step_of(name).build().traits):
            check_forms(then, [step_of(name).build()], affinage.load_model(made))
            continue
        with pytest.raises(InputError, match=r"which is compressed already, has some|happens during training"):
            compress(made, plan=then, out=out, **given)  # type: ignore[arg-type]
        assert not out.exists() and not (tmp_path / "out.partial").exists()


def test_a_model_that_is_stored_in_half_precision_counts_as_it_is_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_tiny(tmp_path, "bert", "sequence")
    half = affinage.load_model(model).half()
    half.save_pretrained(model)
    report = compress(model, plan=plan("t-halve"), out=tmp_path / "out", quiet=True)
    assert report.ledger[0].size_bytes == tensor_bytes(half) < report.ledger[1].size_bytes
    assert "is stored in fp16; what no step packs is stored in fp32, twice as large" in caplog.text


def test_a_model_that_is_not_tuned_for_the_task_is_refused(tmp_path: Path, data: Path) -> None:
    model = save_tiny(tmp_path, "bert")
    with pytest.raises(InputError, match="not fine-tuned for task 'sentiment'"):
        compress(model, plan=plan("t-halve"), task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    with pytest.raises(InputError, match="give both --task and --data"):
        compress(model, plan=plan("t-halve"), task="sentiment", out=tmp_path / "out", quiet=True)


def test_the_teacher_reads_a_trimmed_vocabulary(model: Path, data: Path, tmp_path: Path) -> None:
    steps = plan("trim-vocabulary", "t-halve:rank=8", recover=2, calibration=4)
    report = compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    assert report.ledger[1].parameters < report.ledger[0].parameters
    assert report.ledger[1].score is not None
    before, after = load_tokenizer(model), load_tokenizer(tmp_path / "out")
    assert len(after) < len(before)
    rows = rows_of(before, after, len(after))
    ours, theirs = after.get_vocab(), before.get_vocab()
    assert all(theirs[piece] == rows[number] for piece, number in ours.items())
    values = {s.model: s.value for s in report.scores if (s.split, s.metric) == ("valid", "accuracy")}
    assert set(values) == {"compressed", "uncompressed"}


def test_the_model_as_it_was_is_scored_with_its_own_vocabulary(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with that of what was trimmed, in which words are lost."""
    seen = set()
    plain = TaskRun.evaluate

    def watched(self: TaskRun, network: PreTrainedModel, *given: Any, name: str, **more: Any) -> Any:
        seen.add((name, len(self.tokenizer), network.config.vocab_size))
        return plain(self, network, *given, name=name, **more)

    monkeypatch.setattr(TaskRun, "evaluate", watched)
    compress(model, plan=plan("trim-vocabulary"), task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    before, after = (len(load_tokenizer(folder)) for folder in (model, tmp_path / "out"))
    assert seen == {("student", after, after), ("teacher", before, before)}

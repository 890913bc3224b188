"""Training on tiny models: counts that add up over accumulated batches, resume to the same bits, Ctrl-C, evaluation."""

import os
import signal
import threading
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback, set_seed

from affinage.data.masking import Masker
from affinage.data.pieces import starts_word
from affinage.data.rows import PackedRows
from affinage.data.tokens import TokenStore
from affinage.distillation.objective import Objective, build_losses
from affinage.distillation.student import make_student
from affinage.errors import InputError
from affinage.recipe import Component, Masking, Recipe, StudentSpec, Training
from affinage.training import trainer as trainer_module
from affinage.training.arguments import total_steps, training_arguments
from affinage.training.clock import Clock
from affinage.training.interruption import StopOnInterrupt
from affinage.training.resume import train
from affinage.training.run_folder import RunFolder
from affinage.training.trainer import SumTrainer
from affinage.workflows.corpus_stage import CorpusRows, train_stage
from tiny import SENTENCES, tiny_model, tiny_tokenizer

LOSSES = Recipe.load("distilcamembert").stages[0].losses
SETTINGS: dict[str, Any] = {"batch_size": 2, "row_length": 32, "max_steps": 6, "evaluations": 3, "precision": "fp32"}


def rows(folder: Path, lines: int = 40, *, seed: int = 0) -> PackedRows:
    """Packed rows of the tests' sentences, cut to different lengths so that rows count different numbers of tokens."""
    tokenizer = tiny_tokenizer("camembert")
    texts = [" ".join(SENTENCES[i % 10].split()[: 2 + i % 9]) for i in range(lines)]
    store = TokenStore.build(texts, tokenizer, folder / f"tokens-{lines}")
    special = np.arange(len(tokenizer)) < 5
    masker = Masker(Masking(), 4, special, np.asarray(starts_word(tokenizer)))
    return PackedRows(store, masker, cls_id=0, sep_id=2, pad_id=1, row_length=32, seed=seed)


def objective(losses: tuple[Component, ...] = LOSSES, *, dropout: float = 0.0) -> Objective:
    """A student of two of a loud teacher's four layers."""
    teacher = tiny_model("camembert", initializer_range=0.3)
    student, _ = make_student(teacher, StudentSpec(dropout=dropout))
    return Objective(student, losses, teacher=teacher)


def trainer(
    folder: Path,
    model: Objective,
    callbacks: list[TrainerCallback] | None = None,
    *,
    use_cpu: bool | None = None,
    **settings: Any,
) -> SumTrainer:
    training = Training(**{**SETTINGS, **settings})
    set_seed(training.seed)
    run = RunFolder.open(folder / "out", identity={})
    asked = {} if use_cpu is None else {"use_cpu": use_cpu}
    args = training_arguments(training, folder=run, steps=training.max_steps or 1, **asked)
    return SumTrainer(
        model,
        args,
        rows=rows(folder),
        held_out=rows(folder, 7),
        tokenizer=tiny_tokenizer("camembert"),
        callbacks=callbacks or [],
    )


def weights(model: Objective) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.student.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class At(TrainerCallback):
    """Does something at the end of a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act()


# --- counting --------------------------------------------------------------------------------------------------------


def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    """Two batches of 2 give the step of one batch of 4, though they hide different numbers of tokens."""
    found = []
    for name, size, accumulated in (("one", 4, 1), ("two", 2, 2)):
        model = objective()
        run = trainer(
            tmp_path / name, model, max_steps=3, batch_size=size, gradient_accumulation_steps=accumulated, evaluations=1
        )
        run.train()
        found.append((weights(model), [e for e in run.state.log_history if "loss" in e]))
    batches = [run.train_dataset.collate([run.train_dataset[item] for item in pair]) for pair in pairs(run)]
    counts = torch.stack([model.counts(batch) for batch in batches])
    assert (counts[0] != counts[1]).all()  # else the test would not see a mean of means
    (one, one_log), (two, two_log) = found
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-5)
    for ours, theirs in zip(one_log, two_log, strict=True):
        for name in ("loss", *model.names):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


def pairs(run: SumTrainer) -> list[list[tuple[int, int]]]:
    order = list(run._get_train_sampler())
    return [order[0:2], order[2:4]]


def test_a_step_follows_the_gradient_of_the_weighted_means(tmp_path: Path) -> None:
    """The first step of AdamW with beta1 = beta2 = 0 moves every weight by the sign of a gradient computed here."""
    model, reference = objective(), objective()
    run = trainer(
        tmp_path,
        model,
        max_steps=1,
        evaluations=1,
        gradient_accumulation_steps=2,
        warmup=0,
        schedule="constant",
        weight_decay=0,
        adam_beta1=0,
        adam_beta2=0,
        adam_epsilon=1e-12,
        learning_rate=1e-3,
    )
    batches = [run.train_dataset.collate([run.train_dataset[item] for item in pair]) for pair in pairs(run)]
    before = weights(model)
    run.train()
    counts = torch.stack([reference.counts(batch) for batch in batches]).sum(0)
    # A mean over both batches: each batch's sum over the counts of both, for each loss on its own.
    loss = sum(reference(**batch, scales=torch.tensor([0.5, 0.3, 0.2]) / counts)[0] for batch in batches)
    loss.backward()
    assert run.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for name, parameter in reference.student.named_parameters():
        if parameter.grad is None:
            continue
        moved = model.student.state_dict()[name] - before[name]
        clear = parameter.grad.abs() > 1e-4
        torch.testing.assert_close(moved[clear], -1e-3 * parameter.grad.sign()[clear], rtol=1e-2, atol=1e-6)


def test_the_losses_logged_add_up_to_the_loss(tmp_path: Path) -> None:
    """Also where an epoch ends in the middle of an accumulation, and across an evaluation."""
    model = objective()
    run = trainer(tmp_path, model, gradient_accumulation_steps=4, max_steps=9, logging_steps=2)
    assert len(run.train_dataset) % 8
    run.train()
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(logged) > 3 and logged[-1]["epoch"] > 1
    for entry in logged:
        parts = sum(c.weight * entry[name] for c, name in zip(LOSSES, model.names, strict=True))
        assert entry["loss"] == pytest.approx(parts, rel=1e-4), entry


def test_the_teacher_is_neither_trained_nor_saved(tmp_path: Path) -> None:
    model = objective(dropout=0.5)
    teacher = model._teacher[0]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    run = trainer(tmp_path, model)
    assert not teacher.training
    run.train()
    assert not teacher.training and same(before, dict(teacher.state_dict()))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"student"}
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in model.parameters()}


# --- epochs and evaluation -------------------------------------------------------------------------------------------


def test_every_epoch_has_its_own_order_and_masks(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    size = len(rows(tmp_path))
    run = trainer(tmp_path, objective(), max_steps=2 * ceil(size / 4), batch_size=4, evaluations=1)

    class Watched(PackedRows):
        def __getitem__(self, index: tuple[int, int]) -> Any:
            seen.append(index)
            return super().__getitem__(index)

    run.train_dataset = Watched(**vars_of(run.train_dataset))
    run.train()
    assert [epoch for epoch, _ in seen[: 2 * size]] == [0] * size + [1] * size
    orders = [[row for _, row in seen[i * size : (i + 1) * size]] for i in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(size)) and orders[0] != orders[1]


def vars_of(data: PackedRows) -> dict[str, Any]:
    return {name: getattr(data, name) for name in data.__dataclass_fields__}


def test_evaluation_is_the_mean_over_the_held_out_rows_and_never_changes(tmp_path: Path) -> None:
    model = objective(dropout=0.3)
    run = trainer(tmp_path, model)
    first, state = run.evaluate(), torch.random.get_rng_state()
    torch.manual_seed(99)
    second = run.evaluate()
    torch.random.set_rng_state(state)
    first.pop("eval_seconds"), second.pop("eval_seconds")
    assert first == second
    batch = run.eval_dataset.collate([run.eval_dataset[0, row] for row in range(len(run.eval_dataset))])
    with torch.no_grad():
        means = model.eval()(**batch)[1] / model.counts(batch)
    for name, mean in zip(model.names, means.tolist(), strict=True):
        assert first[f"eval_{name}"] == pytest.approx(mean, rel=1e-4)
    assert first["eval_loss"] == pytest.approx(float(means @ torch.tensor([0.5, 0.3, 0.2])), rel=1e-4)


@pytest.mark.parametrize("recipe", ["distilcamembert", "distilcamembert-as-printed"])
def test_the_objective_of_the_article_and_its_correction_go_down(recipe: str, tmp_path: Path) -> None:
    model = objective(Recipe.load(recipe).stages[0].losses)
    settings = {"max_steps": 30, "evaluations": 1, "batch_size": 8, "learning_rate": 5e-3}
    stage = Recipe.load(recipe).stages[0]
    stage = stage.model_copy(update={"training": Training(**{**SETTINGS, **settings})})
    folder = RunFolder.open(tmp_path / "out", identity={})
    data = CorpusRows(rows(tmp_path), rows(tmp_path, 7))
    set_seed(0)
    before = held_out_means(model, data.held_out)
    run = train_stage(
        model, data, stage, tokenizer=tiny_tokenizer("camembert"), folder=folder, label="test", quiet=True
    )
    after = held_out_means(model, data.held_out)
    assert list(run.losses) == ["loss", *model.names]
    assert run.held_out["pseudo_perplexity"] > 1
    for name, value in zip(model.names, after.tolist(), strict=True):
        assert run.held_out[name] == pytest.approx(value, rel=1e-3)
    assert float(model.weights @ after) < float(model.weights @ before) - 0.1
    cosine_like = after[1] - before[1]
    assert cosine_like < 0  # as printed, this is the similarity itself: the vectors are turned away
    assert list(folder.logs.glob("events.out.tfevents.*"))
    folder.finish(lambda aside: None)
    assert list((tmp_path / "out" / "runs").glob("events.out.tfevents.*"))


@torch.no_grad()
def held_out_means(model: Objective, data: PackedRows) -> Tensor:
    model.eval()
    batch = data.collate([data[0, row] for row in range(len(data))])
    return model(**batch)[1] / model.counts(batch)


# --- interruption and resume -----------------------------------------------------------------------------------------


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_after_ctrl_c_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """With dropout, in the middle of an epoch and of the evaluations; the interrupted step is finished and saved."""
    settings = {"max_steps": 9, "gradient_accumulation_steps": 2}
    model = objective(dropout=0.3)
    whole = trainer(tmp_path / "whole", model, **settings)
    whole.train()
    expected = weights(model)

    model, stop = objective(dropout=0.3), StopOnInterrupt()
    cut = trainer(tmp_path / "cut", model, [At(4, interrupt), stop], **settings)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(cut, None, stop=stop)
    assert signal.getsignal(signal.SIGINT) is handler
    assert cut.state.global_step == 4 and not same(expected, weights(model))
    checkpoint = RunFolder.open(tmp_path / "cut" / "out", identity={}).last_checkpoint()
    assert checkpoint is not None and checkpoint.name == "checkpoint-4"

    model = objective(dropout=0.3)
    with torch.no_grad():  # whatever the new process starts with
        for parameter in model.student.parameters():
            parameter.add_(1)
    torch.manual_seed(12345)
    resumed = trainer(tmp_path / "cut", model, **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert same(expected, weights(model))
    assert model.student.lm_head.decoder.weight is model.student.roberta.embeddings.word_embeddings.weight
    losses = [[e["loss"] for e in run.state.log_history if "loss" in e and e["step"] > 6] for run in (whole, resumed)]
    assert losses[0] == losses[1] and losses[0]


def test_batches_made_ahead_are_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator, where a thread makes them: over epochs, accumulation, evaluations, Ctrl-C and resume."""
    settings = {"max_steps": 2 * ceil(len(rows(tmp_path)) / 4), "gradient_accumulation_steps": 2}
    model = objective(dropout=0.3)
    trainer(tmp_path / "plain", model, **settings).train()
    expected = weights(model)

    made: list[Any] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    build = trainer_module.Ahead.__init__

    def noted(self: Any, items: Any, *depth: int) -> None:
        made.append(items)
        build(self, items, *depth)

    monkeypatch.setattr(trainer_module.Ahead, "__init__", noted)
    model, stop = objective(dropout=0.3), StopOnInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train(trainer(tmp_path / "ahead", model, [At(4, interrupt), stop], use_cpu=True, **settings), None, stop=stop)
    model = objective(dropout=0.3)
    torch.manual_seed(12345)
    checkpoint = tmp_path / "ahead" / "out.partial" / "checkpoints" / "checkpoint-4"
    trainer(tmp_path / "ahead", model, use_cpu=True, **settings).train(resume_from_checkpoint=str(checkpoint))
    assert len(made) >= 3  # of each epoch, and once more of the one that was interrupted
    assert same(expected, weights(model))
    assert not [thread for thread in threading.enumerate() if thread.name == "batches ahead"]


def test_the_last_checkpoint_is_loaded_and_not_trained_on(tmp_path: Path) -> None:
    settings = {"max_steps": 3, "evaluations": 1}
    model = objective(dropout=0.3)
    train(trainer(tmp_path, model, **settings), None, stop=StopOnInterrupt())
    checkpoint = RunFolder.open(tmp_path / "out", identity={}).last_checkpoint()
    assert checkpoint is not None and checkpoint.name == "checkpoint-3"
    expected, model = weights(model), objective(dropout=0.3)
    resumed = trainer(tmp_path, model, **settings)
    assert not same(expected, weights(model))
    train(resumed, checkpoint, stop=StopOnInterrupt())
    assert resumed.state.global_step == 3
    assert same(expected, weights(model))


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    stop, before = StopOnInterrupt(), signal.getsignal(signal.SIGINT)
    run = trainer(tmp_path, objective(), [At(2, interrupt), At(2, interrupt), stop])
    with pytest.raises(KeyboardInterrupt), stop:
        run.train()
    assert run.state.global_step == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failed_run_leaves_ctrl_c_as_it_was() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopOnInterrupt():  # noqa: PT012
        assert signal.getsignal(signal.SIGINT) is not handler
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, objective(), max_steps=1, evaluations=1)
    run.train()
    teacher = tiny_model("camembert")
    other, _ = make_student(teacher, StudentSpec(num_hidden_layers=3))
    with pytest.raises(ValueError, match="does not belong to this model"):
        trainer(tmp_path, Objective(other, LOSSES, teacher=teacher)).train(
            resume_from_checkpoint=str(tmp_path / "out.partial" / "checkpoints" / "checkpoint-1")
        )


def test_the_clock_adds_up_over_interruptions(tmp_path: Path) -> None:
    note = tmp_path / "seconds"
    assert 0 <= Clock(note).seconds < 1
    note.write_text("100.0")
    clock = Clock(note)
    trainer(tmp_path, objective(), [clock], max_steps=1, evaluations=1).train()
    assert 100 < float(note.read_text()) <= clock.seconds < 160


# --- what a recipe asks for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "processes", "expected"),
    [
        ({"epochs": 1, "batch_size": 8}, 1, 13),
        ({"epochs": 2, "batch_size": 8}, 1, 26),
        ({"epochs": 0.5, "batch_size": 8}, 1, 7),
        ({"epochs": 1, "batch_size": 8, "gradient_accumulation_steps": 4}, 1, 4),
        ({"epochs": 1, "batch_size": 8}, 2, 7),
        ({"epochs": 0.001, "batch_size": 8}, 1, 1),
        ({"epochs": 3, "batch_size": 8, "max_steps": 5}, 1, 5),
    ],
)
def test_steps_of_a_hundred_rows(settings: dict[str, Any], processes: int, expected: int) -> None:
    assert total_steps(Training(**settings), 100, processes=processes) == expected


def test_arguments_are_the_recipes(tmp_path: Path) -> None:
    training = Training(learning_rate=3e-4, warmup=0.1, schedule="cosine", evaluations=4, seed=5, precision="fp32")
    folder = RunFolder.open(tmp_path / "out", identity={})
    args = training_arguments(training, folder=folder, steps=50)
    assert (args.learning_rate, args.warmup_steps, args.lr_scheduler_type.value) == (3e-4, 5, "cosine")
    assert (args.eval_steps, args.save_steps, args.max_steps, args.seed, args.bf16) == (13, 13, 50, 5, False)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.98, 1e-6)
    assert args.output_dir == str(folder.checkpoints)
    assert training_arguments(training, folder=folder, steps=2).eval_steps == 1


def test_losses_that_a_recipe_names_wrongly_are_all_named() -> None:
    wrong = (Component(name="sofd_kl"), Component(name="soft_kl", params={"t": 1}), Component(name="cosine_distance"))
    with pytest.raises(InputError) as caught:
        build_losses(wrong, teacher=False)
    for part in ("Did you mean 'soft_kl'", "unknown parameter 't'", "'cosine_distance' compares with a teacher"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="names no losses"):
        build_losses((), teacher=True)

"""Training that goes wrong, for real: it is noticed, said in one line, and stopped or left out as the recipe says."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer

from affinage.cli.app import run
from affinage.errors import CheckFailed, InputError
from affinage.report.report import Report
from affinage.training.task_trainer import TaskTrainer
from affinage.training.trainer import SumTrainer
from affinage.workflows.distil import distil
from affinage.workflows.finetune import finetune
from affinage.workflows.pretrain import pretrain
from tiny_data import ON_TEXT, SHAPE, STEPS, same_weights, settings, write_corpus, write_task

Poison = Callable[[int, Tensor], Tensor]
Weights = dict[int, list[Tensor]]
SIX = {**ON_TEXT, **SHAPE, "training.max_steps": "6", "training.evaluations": "3", "training.logging_steps": "1"}


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Poison], Weights]:
    """Make the loss of each step what the given function of step (from 1) and loss says; the weights before each."""

    def poison(change: Poison) -> Weights:
        weights: Weights = {}
        for kind in (SumTrainer, TaskTrainer):
            compute = kind.compute_loss

            def compute_loss(self: Trainer, model: Any, *args: Any, _compute: Any = compute, **kwargs: Any) -> Any:
                step = self.state.global_step + 1
                weights[step] = [parameter.detach().clone() for parameter in model.parameters()]
                return change(step, _compute(self, model, *args, **kwargs))

            monkeypatch.setattr(kind, "compute_loss", compute_loss)
        return weights

    return poison


def trained(corpus: Path, out: Path, **overrides: str) -> Report:
    return pretrain([corpus], out=out, overrides={**SIX, **overrides}, quiet=True)


def checkpoints(out: Path) -> list[str]:
    return sorted(p.name for p in (out.with_name(out.name + ".partial") / "checkpoints").glob("checkpoint-*"))


def same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def found(report: Report) -> list[tuple[str, str, int, int]]:
    assert report.training is not None
    return [(f.guard, f.action, f.times, f.first_step) for f in report.training.findings]


@pytest.mark.parametrize(
    "poison", [lambda x: x * math.nan, lambda x: x + math.inf], ids=["nan gradients", "finite ones"]
)
def test_a_loss_that_is_no_number_leaves_out_its_step(
    corpus: Path,
    tmp_path: Path,
    poisoned: Callable[[Poison], Weights],
    caplog: pytest.LogCaptureFixture,
    poison: Callable[[Tensor], Tensor],
) -> None:
    weights = poisoned(lambda step, loss: poison(loss) if step == 3 else loss)
    with caplog.at_level(logging.WARNING, "affinage"):
        report = trained(corpus, tmp_path / "out")
    assert same(weights[3], weights[4]) and not same(weights[2], weights[3]) and not same(weights[4], weights[5])
    assert ("non_finite", "skipped", 1, 3) in found(report)
    said = [r.getMessage() for r in caplog.records if "loss is" in r.getMessage()]
    assert len(said) == 1 and said[0].startswith("step 3: the loss is ") and said[0].count("\n") == 0
    assert report.training is not None and all(map(math.isfinite, report.training.losses.values()))
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report


def test_a_run_that_is_to_stop_keeps_its_checkpoint_and_can_go_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        compute = SumTrainer.compute_loss
        patch.setattr(
            SumTrainer,
            "compute_loss",
            lambda self, *a, **k: compute(self, *a, **k) * (math.nan if self.state.global_step == 3 else 1),
        )
        with pytest.raises(CheckFailed, match=r"step 4: the loss is nan: .* Training is stopped; the last whole chec"):
            trained(corpus, tmp_path / "out", **{"guards.non_finite": "stop"})
    assert checkpoints(tmp_path / "out") == ["checkpoint-2"] and not (tmp_path / "out").exists()
    report = trained(corpus, tmp_path / "out", **{"guards.non_finite": "stop"})
    trained(corpus, tmp_path / "whole", **{"guards.non_finite": "stop"})
    assert "non_finite" not in str(found(report))
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_steps_left_out_in_a_row_end_the_run_without_a_checkpoint_of_them(
    corpus: Path, tmp_path: Path, poisoned: Callable[[Poison], Weights]
) -> None:
    poisoned(lambda step, loss: loss * math.nan if step >= 3 else loss)
    with pytest.raises(CheckFailed, match="step 5: 3 updates in a row had to be left out, at last because the loss is"):
        trained(corpus, tmp_path / "out", **{"guards.max_skips": "3"})
    assert checkpoints(tmp_path / "out") == ["checkpoint-2"]


def test_a_learning_rate_of_a_million_explodes(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {**SIX, "training.max_steps": "40", "training.learning_rate": "1e6", "training.warmup": "0"}
    assert run(["pretrain", str(corpus), "--out", str(tmp_path / "out"), *settings(overrides)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    *_, last = err.strip().splitlines()
    assert last.startswith("error: step ") and "updates in a row had to be left out" in last
    assert "lower training.learning_rate" in last
    assert not (tmp_path / "out").exists()


def test_one_spike_is_left_out_also_by_a_run_that_was_interrupted(
    corpus: Path, tmp_path: Path, poisoned: Callable[[Poison], Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The median of the gradient norms is part of the checkpoint."""
    poisoned(lambda step, loss: loss * 1e5 if step == 4 else loss)
    whole = trained(corpus, tmp_path / "whole")
    assert ("exploding_gradient", "skipped", 1, 4) in found(whole)

    class Killed(Exception):
        pass

    with monkeypatch.context() as patch:
        compute = SumTrainer.compute_loss

        def killed(self: SumTrainer, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 2:
                raise Killed
            return compute(self, *args, **kwargs)

        patch.setattr(SumTrainer, "compute_loss", killed)
        with pytest.raises(Killed):
            trained(corpus, tmp_path / "out")
    assert checkpoints(tmp_path / "out") == ["checkpoint-2"]
    assert found(trained(corpus, tmp_path / "out")) == found(whole)
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_spikes_are_applied_where_the_recipe_says_so(
    corpus: Path, tmp_path: Path, poisoned: Callable[[Poison], Weights]
) -> None:
    poisoned(lambda step, loss: loss * 1e5 if step == 4 else loss)
    off = trained(corpus, tmp_path / "out", **{"guards.exploding_gradient": "off", "guards.no_progress": "off"})
    assert found(off) == []
    with pytest.raises(CheckFailed, match="step 4: the gradient norm"):
        trained(corpus, tmp_path / "stop", **{"guards.exploding_gradient": "stop"})


def test_a_student_that_does_not_learn_is_named_or_stopped(corpus: Path, tmp_path: Path) -> None:
    idle = {"training.learning_rate": "1e-15", "training.max_steps": "24", "training.evaluations": "2"}
    report = trained(corpus, tmp_path / "out", **idle)
    assert found(report) == [("no_progress", "warned", 1, 24)]
    assert report.training is not None
    assert "it has hardly fallen, the model does not learn" in report.training.findings[0].message
    with pytest.raises(CheckFailed, match=r"step 20: the held-out loss is .* Training is stopped"):
        trained(corpus, tmp_path / "stop", **{**idle, "training.evaluations": "6", "guards.no_progress": "stop"})
    assert checkpoints(tmp_path / "stop") == ["checkpoint-12", "checkpoint-16"]


@pytest.mark.parametrize(
    ("steps", "evaluations", "bad", "kept"),
    [(6, 3, 4, "checkpoint-2"), (5, 2, 5, "checkpoint-3")],  # the last step is none of the evenly spread ones
)
def test_held_out_figures_that_are_no_numbers_stop_the_run(
    steps: int, evaluations: int, bad: int, kept: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that overflowed in the last update: the losses before it were numbers."""
    step = torch.optim.AdamW.step

    def overflow(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        value = step(self, *args, **kwargs)
        if max((int(s["step"]) for s in self.state.values()), default=0) == bad:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.fill_(math.nan)
        return value

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    more = {"training.evaluations": str(evaluations), "training.max_steps": str(steps)}
    with pytest.raises(CheckFailed, match=f"step {bad}: the held-out loss is nan"):
        trained(corpus, tmp_path / "out", **more)
    assert checkpoints(tmp_path / "out") == [kept]


# --- teachers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("text") / "corpus", lines=500)


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A teacher that knows its text better than by the frequencies of tokens."""
    out = tmp_path_factory.mktemp("knowing") / "teacher"
    more = {"training.max_steps": "150", "training.learning_rate": "1e-2", "training.batch_size": "8"}
    pretrain([text], out=out, overrides={**ON_TEXT, **SHAPE, **more}, quiet=True)
    return out


def test_a_teacher_with_shuffled_weights_is_refused_and_nothing_left(text: Path, knowing: Path, tmp_path: Path) -> None:
    overrides = {**ON_TEXT, "held_out": "0.3", "training.max_steps": "1", "training.evaluations": "1"}
    report = distil(knowing, corpus=[text], out=tmp_path / "good", overrides=overrides, quiet=True)
    assert "bad_teacher" not in str(found(report))
    stored = load_file(knowing / "model.safetensors")
    random = torch.Generator().manual_seed(0)
    shuffled = {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=random)].view(tensor.shape)
        for name, tensor in stored.items()
    }
    for file in knowing.iterdir():
        if file.is_file():
            (tmp_path / "bad").mkdir(exist_ok=True)
            (tmp_path / "bad" / file.name).write_bytes(file.read_bytes())
    save_file(shuffled, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="the teacher's masked language model loss is") as caught:
        distil(tmp_path / "bad", corpus=[text], out=tmp_path / "out", overrides=overrides, quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.partial").exists()
    warned = {**overrides, "guards.bad_teacher": "warn"}
    report = distil(tmp_path / "bad", corpus=[text], out=tmp_path / "out", overrides=warned, quiet=True)
    assert found(report)[0] == ("bad_teacher", "warned", 1, 0)


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def test_fine_tuning_is_guarded_too(teacher: Path, tmp_path: Path, poisoned: Callable[[Poison], Weights]) -> None:
    data = write_task(tmp_path / "data", "sentiment")
    overrides = {**STEPS, "training.max_steps": "6", "training.evaluations": "3", "training.logging_steps": "1"}
    poisoned(lambda step, loss: loss * math.nan if step == 3 else loss)
    report = finetune(teacher, task="sentiment", data=data, out=tmp_path / "out", overrides=overrides, quiet=True)
    assert ("non_finite", "skipped", 1, 3) in found(report)
    assert report.training is not None and math.isfinite(report.training.losses["cross_entropy"])
    with pytest.raises(CheckFailed, match="step 3: the loss is nan"):
        finetune(
            teacher,
            task="sentiment",
            data=data,
            out=tmp_path / "stop",
            overrides={**overrides, "guards.non_finite": "stop"},
            quiet=True,
        )
    assert checkpoints(tmp_path / "stop") == ["checkpoint-2"]
    idle = {**overrides, "training.learning_rate": "1e-15", "training.max_steps": "20", "guards.no_progress": "stop"}
    with pytest.raises(CheckFailed, match=r"the held-out accuracy is .* it has hardly risen"):
        finetune(teacher, task="sentiment", data=data, out=tmp_path / "idle", overrides=idle, quiet=True)

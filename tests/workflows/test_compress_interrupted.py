"""A plan that is interrupted, between steps or within one, ends with the same bytes when the command is given again."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from affinage.compression.plan import Plan, step_of
from affinage.models.storage import COMPRESSED, STOCK
from affinage.report.report import Report
from affinage.training.compression import HoldZeros
from affinage.workflows import compress_ways
from affinage.workflows.compress import compress
from affinage.workflows.compress_ways import ModelAlone
from tiny_data import write_task
from tiny_tasks import tuned_teacher

SETTINGS = {"training.batch_size": 4, "training.row_length": 32, "training.evaluations": 4}
STEPS = 8
"""of recovery, with a checkpoint after every second"""
KILLED_IN = 5
"""this one: a step was made since the last checkpoint"""


class Killed(BaseException):
    """Nothing may catch it, as nothing catches the signal that it stands for."""


class Place:
    """One model, one set of rows, and the runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = tuned_teacher(folder, "sentiment", "bert")
        self.data = write_task(folder / "data", "sentiment")

    def run(self, out: str, *steps: str, recover: int) -> Report:
        plan = Plan.of({"steps": list(map(step_of, steps)), "settings": SETTINGS, "recover": recover, "calibration": 8})
        return compress(self.model, plan=plan, task="sentiment", data=self.data, out=self.folder / out, quiet=True)

    def check_same(self, *outs: str) -> None:
        names = {path.name for path in (self.folder / outs[0]).iterdir()} - {"report.json", "README.md", "runs"}
        assert names & {COMPRESSED, STOCK} and "plan.yaml" in names
        for name in names:
            first, second = ((self.folder / out / name).read_bytes() for out in outs)
            assert first == second, name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(compress_ways, "one_text_ms", lambda model: 1.0)
    return Place(tmp_path)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_between_steps(place: Place, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("prune-n-m", "int8-embeddings")
    place.run("whole", *steps, recover=2)
    keep = ModelAlone.keep

    def killed(self: ModelAlone, number: int, *rest: Any) -> None:
        keep(self, number, *rest)
        if number == after:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(ModelAlone, "keep", killed)
        with pytest.raises(Killed):
            place.run("parts", *steps, recover=2)
    report = place.run("parts", *steps, recover=2)
    place.check_same("whole", "parts")
    assert report.training is not None and report.training.steps == 4


@pytest.mark.parametrize(
    "method",
    [
        "svd:rank=3",  # plain recovery
        "prune-movement:sparsity=0.5",  # learned scores, and masks by a schedule
        pytest.param("qat-int8", marks=pytest.mark.slow),  # ranges that follow what is seen
        pytest.param("layer-drop", marks=pytest.mark.slow),  # chance in every pass
    ],
)
def test_within_the_training_of_a_step(place: Place, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("drop-layers:keep=3", method)
    whole = place.run("whole", *steps, recover=STEPS)
    on_step_end, taken = HoldZeros.on_step_end, list[int]()

    def noted(
        self: HoldZeros, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        on_step_end(self, args, state, control, **more)
        assert "step-2" in str(args.output_dir) or not taken
        if "step-2" in str(args.output_dir):
            taken.append(state.global_step)
            if len(taken) == KILLED_IN:
                raise Killed

    monkeypatch.setattr(HoldZeros, "on_step_end", noted)
    with pytest.raises(Killed):
        place.run("parts", *steps, recover=STEPS)
    report = place.run("parts", *steps, recover=STEPS)
    assert taken == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    place.check_same("whole", "parts")
    assert report.training is not None and whole.training is not None
    assert report.training.losses == whole.training.losses
    assert [e.score for e in report.ledger] == [e.score for e in whole.ledger]

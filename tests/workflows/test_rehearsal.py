"""What a model cannot take is refused before anything is trained, whichever step of the plan it is; asking changes
nothing else.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import affinage.workflows.compress as workflow
from affinage.compression.base import Resources, TakesLong, compressors
from affinage.compression.plan import Plan, step_of
from affinage.compression.rehearsal import rehearse
from affinage.compression.run import State
from affinage.errors import InputError
from affinage.models.storage import COMPRESSED
from affinage.signals import Batch
from affinage.training.run_folder import RunFolder
from affinage.workflows import compress_ways
from affinage.workflows.compress import compress
from affinage.workflows.compress_ways import ModelAlone, WithTask
from applied import NAMES, batches, forms, once, operations
from applied import loss as loss_of
from tiny import SENTENCES, save_tiny, tiny_model, tiny_tokenizer
from tiny_data import write_task
from tiny_tasks import tuned_teacher

SMALL = {"training.batch_size": 4, "training.row_length": 32, "training.evaluations": 2}
ANGLES = {"settings": {**SMALL, "losses": "[{name: task_labels}, {name: cosine_distance}]"}}
"""recovery whose losses compare no states of unlike widths"""
LONG = [name for name in NAMES if isinstance(compressors.build(name), TakesLong)]


def plan(*steps: str, **more: Any) -> Plan:
    return Plan.of({"steps": [step_of(step) for step in steps], "recover": 2, "settings": SMALL, **more})


def never(self: ModelAlone, *rest: Any) -> Any:
    raise AssertionError("this comes after what can be refused")


@pytest.mark.parametrize(
    ("architecture", "steps", "more", "said"),
    [
        # The architecture.
        ("flaubert", ["trim-vocabulary", "prune-width"], {}, "step 2, 'prune-width': prune-width does not fit"),
        ("flaubert", ["trim-vocabulary", "layer-drop"], {}, "step 2, 'layer-drop': layer-drop does not fit"),
        ("flaubert", ["trim-vocabulary", "albert"], {}, "step 2, 'albert': albert: the parts of a 'flaubert'"),
        # Sizes, as the steps before leave them.
        ("bert", ["drop-layers:keep=2", "drop-layers:keep=3"], {}, "step 2, 'drop-layers': keep=3 of 2 layers"),
        ("bert", ["drop-layers:keep=2", "share-layers:groups=2"], {}, "2 groups of 2 layers share nothing"),
        ("bert", ["prune-neurons", "kronecker:block=3"], {}, "step 2, 'kronecker': kronecker: block 3"),
        ("bert", ["prune-neurons", "west:length=3"], {}, "step 2, 'west': west: length 3 does not divide"),
        ("bert", ["prune-neurons", "slim-embeddings:pieces=3"], {}, "3 pieces do not divide"),
        # What an earlier step replaced.
        ("bert", ["svd:rank=3", "kronecker"], {}, "step 2, 'kronecker': kronecker: the model's all are compressed"),
        # How much text there is.
        ("bert", ["drop-layers", "int8-static"], {"calibration": 1}, "step 2, 'int8-static': calibration texts of"),
        ("bert", ["drop-layers", "qat-int8"], {"calibration": 1}, "step 2, 'qat-int8': calibration texts of"),
        ("bert", ["drop-layers", "activation-svd"], {"calibration": 1}, "the widest input 32 entries"),
        # What the losses of recovery can compare.
        ("bert", ["drop-layers", "prune-width"], ANGLES, "step 2, 'prune-width': loss 'cosine_distance'"),
        # A single step, before the model is scored.
        ("flaubert", ["prune-width"], {}, "step 1, 'prune-width': prune-width does not fit"),
    ],
)
def test_every_step_is_refused_before_any_work(
    architecture: str,
    steps: list[str],
    more: Mapping[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("measured", "keep", "recovered", "score"):
        monkeypatch.setattr(WithTask, name, never)
    model, data = tuned_teacher(tmp_path, "sentiment", architecture), write_task(tmp_path / "data", "sentiment")
    with pytest.raises(InputError) as refused:
        compress(model, plan=plan(*steps, **more), task="sentiment", data=data, out=tmp_path / "out", quiet=True)
    assert said in str(refused.value) and str(refused.value).startswith("the plan cannot run:\n  step")
    assert not list(tmp_path.glob("out*"))


def test_without_data_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelAlone, "keep", never)
    steps = plan("prune-neurons-onorm", "west:length=3", recover=0, settings={})
    with pytest.raises(InputError, match="step 2, 'west'"):
        compress(save_tiny(tmp_path, "bert"), plan=steps, out=tmp_path / "out", quiet=True)
    assert not list(tmp_path.glob("out*"))


def test_what_is_made_is_the_same_with_and_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also: ALBERT's warning is given once, and before it is healed."""
    model, data = tuned_teacher(tmp_path, "sentiment", "bert"), write_task(tmp_path / "data", "sentiment")
    monkeypatch.setattr(compress_ways, "one_text_ms", lambda model: 1.0)
    asked: list[State] = []

    def go(out: str) -> Path:
        steps = plan("prune-neurons-evenly", "albert", "slim-embeddings:pieces=2", calibration=8)
        compress(model, plan=steps, task="sentiment", data=data, out=tmp_path / out, quiet=True)
        return tmp_path / out / COMPRESSED

    with caplog.at_level(logging.INFO, logger="affinage"):
        asked_first = go("asked")
    told = [record.getMessage() for record in caplog.records]
    (warned,) = [i for i, message in enumerate(told) if "albert: an approximate start" in message]
    trained = [i for i, message in enumerate(told) if message.startswith("stage 'recovery'")]
    assert caplog.records[warned].levelno == logging.WARNING
    assert len(trained) == 3 and trained[0] < warned < trained[1]
    with monkeypatch.context() as patched:
        patched.setattr(workflow, "rehearse", lambda *given: asked.append(given[2]))
        assert go("unasked").read_bytes() == asked_first.read_bytes()
    assert len(asked) == 1


class Counted(ModelAlone):
    """With data of which every use is counted."""

    recovers = True
    given = frozenset({"calibration", "gradients", "score", "latency", "texts"})

    def resources(self, state: State) -> Resources:
        self.passes = 0

        def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
            self.passes += 1
            return loss_of(model, batch)

        rows = batches("bert", "sequence") * 50
        return Resources(
            calibration=rows,
            loss=loss,
            score=never,
            latency=operations,
            texts=SENTENCES,  # type: ignore[arg-type]
        )

    def check_recovery(self, state: State) -> None:
        pass


@pytest.mark.parametrize("name", ["prune-heads", "prune-fisher", "search-layers", "sensitivity-svd", "mixed-bits"])
def test_it_costs_little(name: str, tmp_path: Path) -> None:
    """A pass or two over what every method insists on; nothing is scored, searched, or changed."""
    start = State(tiny_model("bert", "sequence"), tiny_tokenizer("bert"))
    before = {key: value.clone() for key, value in start.model.state_dict().items()}
    steps = plan(name)
    ways = Counted(steps, start, RunFolder(tmp_path, tmp_path, overwrite=False))
    random = torch.get_rng_state()
    rehearse(steps, steps.checked(), start, ways)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in start.model.state_dict().items())
    assert ways.passes <= 2


@pytest.mark.parametrize("name", LONG)
def test_the_quick_stand_in_leaves_the_same(name: str) -> None:
    whole, made, _ = once(name, "bert", "sequence")
    method = compressors.build(name)
    assert isinstance(method, TakesLong)
    given = Resources(
        calibration=batches("bert", "sequence"), loss=loss_of, latency=operations, texts=SENTENCES, seed=0
    )
    quick = method.quick().apply(whole, given)
    assert forms(quick, whole) == forms(made, whole)
    if not any(form.startswith("packed") for form in method.traits.leaves):  # what is packed no other method reads
        sizes = [sum(p.numel() for p in model.state_dict().values()) for model in (quick, made)]
        assert sizes[0] == sizes[1]

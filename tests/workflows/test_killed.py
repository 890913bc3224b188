"""kill -9 at any moment: the same command, run again, ends with the same bits and leaves nothing behind."""

import random
import signal
import socket
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from affinage.report.report import Report
from affinage.training.checkpoints import NOTE
from killable import Death, start
from tiny import save_tiny
from tiny_data import ON_TEXT, SHAPE, STEPS, same_weights, settings, write_corpus, write_task

pytestmark = pytest.mark.timeout(900)  # seconds on a machine at rest, minutes on a busy one

SAVED = (2, 4, 6, 8)
"""steps after which a checkpoint is written"""
LONGER = {"training.max_steps": "8", "training.evaluations": "4", "training.logging_steps": "1"}
# A random teacher is worse than chance: a guard of the recipe says so.
TEXT = {**ON_TEXT, **LONGER, "held_out": "0.01", "guards.bad_teacher": "warn"}
STREAMED = {"streaming": "true", "block_tokens": "400"}
"""about two steps a block"""
CACHED = {"teacher_cache": "float16", "masking.variants": "1", "held_out": "0.2"}
KILLS = 3
"""of one run, at most"""


@dataclass(frozen=True)
class Place:
    """What the runs are made from and where they work."""

    folder: Path
    commands: dict[str, list[str]]

    def begin(self, verb: str, out: str, death: Death | None = None, **variables: str) -> ForkServerProcess:
        """The command of the verb, with another output; it tokenises for itself."""
        variables["AFFINAGE_CACHE"] = str(self.folder / f"{out}.cache")
        arguments = [*self.commands[verb], "--out", str(self.folder / out)]
        return start(arguments, messages=self.folder / f"{out}.log", variables=variables, death=death)

    def messages(self, out: str) -> str:
        return (self.folder / f"{out}.log").read_text(encoding="utf-8")

    def whole(self, verb: str) -> Path:
        """What a run that nobody interrupted made."""
        out = self.folder / f"whole-{verb}"
        if not out.exists():
            process = self.begin(verb, out.name)
            process.join()
            assert process.exitcode == 0, self.messages(out.name)
        return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("killed")
    model = str(save_tiny(folder))
    texts, rows = write_corpus(folder / "texts", lines=2_500), write_task(folder / "rows", "sentiment")
    few = write_corpus(folder / "few", lines=20)  # which training reads more than once
    commands = {
        "cached": ["distil", model, "--corpus", str(few), *settings({**TEXT, **CACHED})],
        "stream": ["distil", model, "--corpus", str(texts), *settings({**TEXT, **STREAMED})],
        "pretrain": ["pretrain", str(texts), *settings({**TEXT, **SHAPE})],
        "distil": ["distil", model, "--corpus", str(texts), *settings(TEXT)],
        "finetune": ["finetune", model, "--task", "sentiment", "--data", str(rows), *settings({**STEPS, **LONGER})],
    }
    return Place(folder, commands)


PHASES = {
    "beginning": "partial/checkpoints",
    "tokenising": "/train/ids.bin",
    "holding out": "/held_out/ids.bin",
    "tokenising on": "tokens/block-000001/ids.bin",
    "caching": "partial/teacher",
    "training": "checkpoint-{step}/checksums.json",
    "saving": "checkpoints/checkpoint-{step}",
    "sealing": "checkpoint-{step}/checksums.tmp",
    "finishing": "partial/final",
    "renaming": "partial/final.whole",
    "clearing": "{out}",
}
"""phase -> how the path ends that is opened, made or renamed when it begins"""
LATER_MS = {
    **{"beginning": 300, "tokenising": 100, "tokenising on": 100},
    **{"caching": 200, "training": 100, "saving": 50, "finishing": 50},
}
"""A moment falls at random within so many milliseconds after that; elsewhere within five."""


def moment(phase: str, out: Path, chance: random.Random) -> Death:
    path = PHASES[phase].format(step=chance.choice(SAVED), out=out)
    return Death(path, chance.uniform(0, LATER_MS.get(phase, 5)) / 1000)


def survives(place: Place, verb: str, phase: str, seed: int) -> int:
    """Kill a run in that phase, perhaps again in others, and look at what it ends with; how often it was killed."""
    chance = random.Random(f"{seed} {verb} {phase}")
    whole = place.whole(verb)
    name = f"{verb}-{phase}-{seed}".replace(" ", "-")
    out = place.folder / name
    phases = [phase, *chance.sample(sorted(PHASES), chance.randrange(KILLS))]
    killed = 0
    for at in phases:
        if out.exists():  # it was killed when all was done but the clearing up
            break
        process = place.begin(verb, name, moment(at, out, chance))
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    process = place.begin(verb, name)
    process.join()
    said = place.messages(name)
    if process.exitcode:
        # Killed after its very last rename, it had ended; nobody can tell that from a run that was not killed.
        assert process.exitcode == 2, said
        assert said.splitlines()[-1].endswith("exists; choose another --out, or replace it with --overwrite"), said
    assert same_weights(out, whole), (phases, said)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert not list(place.folder.glob(f"{name}.*partial")), (phases, said)
    ours, theirs = (Report.from_json((folder / "report.json").read_text()).training for folder in (out, whole))
    assert ours is not None and theirs is not None
    assert (ours.held_out, ours.losses) == (theirs.held_out, theirs.losses)
    assert "warning: " not in said.replace("warning: step", "")  # nothing was damaged: what is half done is not read
    return killed


@pytest.mark.parametrize(("verb", "phase"), [("distil", "tokenising"), ("cached", "caching"), ("finetune", "saving")])
def test_a_killed_run_goes_on_to_the_same_weights(place: Place, verb: str, phase: str) -> None:
    assert survives(place, verb, phase, seed=0)


def together(place: Place, out: str, death: Death | None = None) -> list[ForkServerProcess]:
    """Two processes of one run, as torchrun would start them; the death is the first one's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    deaths = {"0": death, "1": None}
    return [place.begin("distil", out, deaths[rank], RANK=rank, LOCAL_RANK=rank, **meet) for rank in deaths]


def test_two_killed_processes_go_on_together(place: Place) -> None:
    """From one and the same checkpoint, though a later one is half written; each with its own random numbers."""
    whole = place.folder / "whole-two"
    for process in together(place, whole.name):
        process.join()
        assert process.exitcode == 0, place.messages(whole.name)
    out = place.folder / "cut-two"
    first, second = together(place, out.name, Death("checkpoints/checkpoint-6", 0.01))
    first.join()
    assert first.exitcode == -signal.SIGKILL
    second.kill()
    second.join()
    checkpoints = out.with_name(f"{out.name}.partial") / "checkpoints"
    assert any(checkpoints.glob(f"*/{NOTE}"))
    for process in together(place, out.name):
        process.join()
        assert process.exitcode == 0, place.messages(out.name)
    assert same_weights(out, whole)
    assert place.messages(out.name).count("from checkpoint-") == 1  # said by the first of them
    assert Report.from_json((out / "report.json").read_text()).provenance.processes == 2


MOMENTS = [
    *(("pretrain", phase) for phase in ("beginning", "tokenising", "training", "saving", "sealing")),
    *(("distil", phase) for phase in PHASES if phase not in ("tokenising on", "caching")),
    *(("cached", phase) for phase in ("caching", "training")),
    *(("stream", phase) for phase in ("tokenising on", "saving")),
    *(("finetune", phase) for phase in ("saving", "finishing")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "phase"), MOMENTS)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(place: Place, verb: str, phase: str) -> None:
    assert survives(place, verb, phase, seed=1)

"""Checkpoints: half-written ones are never read, damaged ones named; wherever a run is killed, the last is whole."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from affinage.data.checksums import checksums, damage, read_note, write_durably
from affinage.errors import InputError
from affinage.training.checkpoints import NOTE, rotate, seal, take_up
from dying import Died, change, dying_after, sync

STEPS = range(1, 7)


def write(folder: Path, step: int, *, best: int | None = None) -> Path:
    """A checkpoint as the Trainer leaves it, without its note."""
    path = folder / f"checkpoint-{step}"
    (path / "shards").mkdir(parents=True, exist_ok=True)
    state = {
        "global_step": step,
        "best_model_checkpoint": best and str(Path("where") / "it" / "was" / f"checkpoint-{best}"),
    }
    texts = {"model.safetensors": f"weights {step}" * 9, "shards/0": f"{step}", "trainer_state.json": json.dumps(state)}
    for name, text in texts.items():
        with (path / name).open("w") as stream:
            stream.write(text[:5])
            stream.flush()
            change()
            stream.write(text[5:])
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def flip(path: Path) -> None:
    """One bit, the size as it was."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_the_note_holds_the_size_and_sha256_of_every_file(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    (path / "left.tmp").write_text("of a note that was being written when a run was killed")
    seal(path)
    files = {"model.safetensors", "shards/0", "trainer_state.json"}
    expected = {
        name: {
            "size": len((path / name).read_bytes()),
            "sha256": hashlib.sha256((path / name).read_bytes()).hexdigest(),
        }
        for name in files
    }
    assert json.loads((path / NOTE).read_text()) == expected
    seal(path)
    assert json.loads((path / NOTE).read_text()) == expected


def test_a_checkpoint_without_a_note_is_never_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert take_up(tmp_path) is None
    write(tmp_path, 2)
    (tmp_path / "checkpoint-notes").mkdir()  # is not one
    with caplog.at_level(logging.INFO, logger="affinage"):
        assert take_up(tmp_path) is None
    assert [(r.levelname, "checkpoint-2' was not finished" in r.message) for r in caplog.records] == [("INFO", True)]
    assert names(tmp_path) == {"checkpoint-notes"}


def test_the_newest_is_that_of_the_last_step(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        seal(write(tmp_path, step))
    write(tmp_path, 1000)
    assert take_up(tmp_path) == tmp_path / "checkpoint-100"
    assert names(tmp_path) == {"checkpoint-9", "checkpoint-10", "checkpoint-100"}


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("model.safetensors", flip, "is not what was written (its sha256 differs)"),
        ("model.safetensors", shorten, "has 80 bytes, 81 were written"),
        ("shards/0", Path.unlink, "is missing"),
        (NOTE, shorten, ""),
        (NOTE, lambda path: path.write_text("[]"), ""),
        (NOTE, lambda path: path.write_text('{"model.safetensors": 3}'), ""),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_it_taken(
    name: str, harm: Callable[[Path], None], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 4):
        seal(write(tmp_path, step))
    damaged = tmp_path / "checkpoint-4"
    harm(damaged / name)
    assert take_up(tmp_path) == tmp_path / "checkpoint-2"
    (warning,) = caplog.records
    where = f"'{damaged / name}' {said}" if said else f"the checksums of '{damaged}' cannot be read"
    assert warning.levelname == "WARNING"
    assert warning.message == f"{where}; the run goes on from checkpoint-2"
    assert names(tmp_path) == {"checkpoint-2"}


def test_where_all_are_damaged_one_is_told_what_to_do_and_nothing_is_deleted(tmp_path: Path) -> None:
    for step in (2, 4):
        seal(write(tmp_path, step))
        flip(tmp_path / f"checkpoint-{step}" / "shards" / "0")
    write(tmp_path, 6)
    with pytest.raises(InputError) as caught:
        take_up(tmp_path)
    assert str(caught.value) == (
        f"'{tmp_path}/checkpoint-4/shards/0' is not what was written (its sha256 differs), and no other checkpoint is "
        f"whole; delete the folder '{tmp_path}' and run the same command again to train anew"
    )
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}


def test_the_best_one_must_be_whole_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The Trainer ends with the best one's weights: of 2, 4 and 6, the last two name 4 as theirs."""
    for step, best in ((2, 2), (4, 4), (6, 4)):
        seal(write(tmp_path, step, best=best))
    assert take_up(tmp_path) == tmp_path / "checkpoint-6"
    flip(tmp_path / "checkpoint-4" / "model.safetensors")
    assert take_up(tmp_path) == tmp_path / "checkpoint-2"
    assert all("checkpoint-4/model.safetensors' is not what was written" in r.message for r in caplog.records)
    assert names(tmp_path) == {"checkpoint-2"}


def test_two_are_kept_and_the_best_one_they_name(tmp_path: Path) -> None:
    for step, best in ((9, 9), (10, 10), (11, 10), (100, 10), (101, 10)):
        seal(write(tmp_path, step, best=best))
        rotate(tmp_path)
    assert names(tmp_path) == {"checkpoint-10", "checkpoint-100", "checkpoint-101"}
    seal(write(tmp_path, 102, best=102))
    rotate(tmp_path)
    assert names(tmp_path) == {"checkpoint-10", "checkpoint-101", "checkpoint-102"}
    write(tmp_path, 103)
    rotate(tmp_path)  # which never counts one that is not whole
    assert {"checkpoint-101", "checkpoint-102"} < names(tmp_path)


# --- killed anywhere -------------------------------------------------------------------------------------------------


@pytest.fixture
def half_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", sync)


def train(folder: Path, sealed: list[int]) -> None:
    """What a run does with the disk; the best score is that of step 2. Adds to `sealed` what has been finished."""
    whole = take_up(folder)
    for step in STEPS[int(whole.name[11:]) if whole else 0 :]:
        write(folder, step, best=min(step, 2))
        seal(folder / f"checkpoint-{step}")
        sealed.append(step)
        rotate(folder)


@pytest.mark.usefixtures("half_synced")
def test_wherever_a_run_is_killed_the_last_checkpoint_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before each of its changes to the disk, and once more when it is run again."""
    at, lived = 0, False
    while not lived:
        folder, sealed = tmp_path / str(at), [0]
        folder.mkdir()
        with dying_after(at):
            train(folder, sealed)
            lived = True
        with dying_after(at % 7):
            train(folder, sealed)
        whole = take_up(folder)
        assert (int(whole.name[11:]) if whole else 0) >= max(sealed)
        assert whole is None or damage(whole, read_note(whole / NOTE)) is None
        train(folder, [])
        # One is left over where the last step was done and only the deletion not.
        assert names(folder) - {"checkpoint-4"} == {"checkpoint-2", "checkpoint-5", "checkpoint-6"}
        at += 1
    assert at > 80
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("half_synced")
def test_a_note_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    for at in range(5):
        with dying_after(at):
            write_durably(note, json.dumps({"step": at}))
        assert read_note(note) in (None, {"step": at})
    assert read_note(note) == {"step": 4}
    assert checksums(tmp_path).keys() == {"note.json"}


def test_death_is_death() -> None:
    """What a `finally` still tries is refused too."""
    reached = []
    with dying_after(0):
        try:
            change()
        finally:
            reached.append(1)
            with pytest.raises(Died):
                change()
            reached.append(2)
    assert reached == [1, 2]
    change()

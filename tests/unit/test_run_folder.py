"""A run's folder: refused at once where it cannot be used, whole or absent at the end, resumed when interrupted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from affinage.errors import InputError
from affinage.training.checkpoints import seal
from affinage.training.run_folder import RunFolder, refuse_existing, written_aside
from dying import dying_after, sync

IDENTITY = {"verb": "distil", "recipe": "abc", "corpus": {"a.txt": "1"}}


def write_model(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_ends_in_one_whole_folder(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "deep" / "out", identity=IDENTITY)
    assert folder.checkpoints.is_dir() and folder.logs.is_dir() and not folder.out.exists()
    (folder.logs / "events.1").write_text("events")
    assert folder.finish(write_model) == tmp_path / "deep" / "out"
    assert tree(tmp_path) == {"deep/out/model.safetensors", "deep/out/runs/events.1"}
    assert not folder.partial.exists()


def test_an_existing_output_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists; choose another --out, or replace it with --overwrite"):
        RunFolder.open(tmp_path / "out", identity=IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "file").write_text("")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"exists|is a file"):
            RunFolder.open(tmp_path / "file", identity=IDENTITY, overwrite=overwrite)


def test_overwriting_replaces_the_output_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    folder = RunFolder.open(out, identity=IDENTITY, overwrite=True)
    assert tree(out) == {"old"}
    with pytest.raises(OSError, match="disk full"):
        folder.finish(full_disk)
    assert tree(out) == {"old"}
    folder.finish(write_model)
    assert tree(tmp_path) == {"out/model.safetensors"}


def full_disk(folder: Path) -> None:
    stopped(folder, OSError("disk full"))


def stopped(folder: Path, stop: BaseException) -> None:
    write_model(folder)
    raise stop


def test_a_failure_while_writing_leaves_no_output_and_can_be_repeated(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    with pytest.raises(OSError, match="disk full"):
        folder.finish(full_disk)
    assert not (tmp_path / "out").exists()
    again = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    again.finish(write_model)
    assert tree(tmp_path) == {"out/model.safetensors"}


@pytest.mark.parametrize("out", ["file/out", "file/deeper/out", "/proc/none/out", "a" * 300, "a" * 250])
def test_where_nothing_can_be_written_is_said_at_once(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made: .*; choose another --out"):
        RunFolder.open(tmp_path / out, identity=IDENTITY)


@pytest.mark.parametrize("out", [".", "/", "..", ""])
def test_a_path_without_a_name_is_no_output(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"exists|names no folder"):
            RunFolder.open(out, identity=IDENTITY, overwrite=overwrite)


def test_the_same_run_is_taken_up_and_another_refused(tmp_path: Path) -> None:
    first = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    (first.checkpoints / "kept").write_text("")
    again = RunFolder.open(tmp_path / "out", identity=dict(reversed(IDENTITY.items())))
    assert (again.checkpoints / "kept").is_file()
    with pytest.raises(InputError, match=r"unfinished run with another corpus, recipe; .* --out"):
        RunFolder.open(tmp_path / "out", identity={**IDENTITY, "recipe": "x", "corpus": {}})
    (first.partial / "run.json").write_text("not json")
    with pytest.raises(InputError, match="other settings"):
        RunFolder.open(tmp_path / "out", identity=IDENTITY)


def test_a_folder_of_that_name_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "out.partial"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"out\.partial' is not a folder of affinage's; .* --out"):
        RunFolder.open(tmp_path / "out", identity=IDENTITY)
    assert tree(tmp_path) == {"out.partial/thesis.tex"}


def test_a_run_that_died_before_its_note_was_written_is_taken_up(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    (folder.partial / "run.json").rename(folder.partial / "run.tmp")
    RunFolder.open(tmp_path / "out", identity={"verb": "pretrain"}).finish(write_model)
    assert tree(tmp_path) == {"out/model.safetensors"}


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    assert folder.last_checkpoint() is None
    for step in (9, 10, 100):
        checkpoint = folder.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        if step < 100:
            seal(checkpoint)
    assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-10"


@pytest.mark.parametrize("overwrite", [False, True])
def test_wherever_a_run_is_killed_in_its_last_moments_it_ends_whole(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each change to the disk that `finish` makes; and then once more, at each that the rerun makes."""
    monkeypatch.setattr(os, "fsync", sync)
    expected = {"out/model.safetensors", "out/runs/events.1"}

    def run(place: Path) -> None:
        folder = RunFolder.open(place / "out", identity=IDENTITY, overwrite=overwrite)
        (folder.logs / "events.1").write_text("events")
        folder.finish(write_model)

    def again(place: Path) -> None:
        if not overwrite and (place / "out").exists():
            with pytest.raises(InputError, match="exists; choose another --out"):
                run(place)
        else:
            run(place)

    at, lived = 0, False
    while not lived:
        for number, second in enumerate((0, at % 11, 99)):
            place = tmp_path / f"{at}-{number}"
            place.mkdir()
            if overwrite:
                (place / "out").mkdir()
                (place / "out" / "old").write_text("old")
            with dying_after(at):
                run(place)
                lived = True
            if overwrite:  # what is replaced is always somewhere
                assert {"out/old", "out.partial/replaced/old", "out/model.safetensors"} & tree(place)
            with dying_after(second):
                again(place)
            again(place)
            assert tree(place) == expected
            assert [path.name for path in place.iterdir()] == ["out"]
        at += 1
    assert at > 20


def test_what_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    """Killed between the two renames, and then given up: the old output is there again."""
    folder = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    (folder.partial / "replaced").mkdir()
    (folder.partial / "replaced" / "old").write_text("old")
    with pytest.raises(InputError, match="exists; choose another --out"):
        RunFolder.open(tmp_path / "out", identity=IDENTITY)
    assert tree(tmp_path / "out") == {"old"}


@pytest.mark.parametrize("finished", [False, True])
def test_what_a_run_at_work_has_is_not_cleared_away(finished: bool, tmp_path: Path) -> None:
    """Beside an output that this run is to replace, however far it has come."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    folder = RunFolder.open(tmp_path / "out", identity=IDENTITY, overwrite=True)
    if finished:
        (folder.partial / "final").mkdir()
        (folder.partial / "final.whole").write_text("")
    before = tree(folder.partial)
    with pytest.raises(InputError, match="exists; choose another --out"):
        refuse_existing(tmp_path / "out", overwrite=False)
    assert tree(folder.partial) == before


def test_a_run_that_came_to_its_end_leaves_nothing_though_its_output_was_moved(tmp_path: Path) -> None:
    """Killed while it cleared up: what is left is not taken for an unfinished run."""
    left = RunFolder.open(tmp_path / "out", identity=IDENTITY).partial
    (left / "seconds").write_text("1.0")
    (left / "final.whole").write_text("")
    (left / "run.json").unlink()
    RunFolder.open(tmp_path / "out", identity={"verb": "pretrain"}).finish(write_model)
    assert tree(tmp_path) == {"out/model.safetensors"}


def test_input_that_turns_out_bad_before_training_leaves_nothing(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    with pytest.raises(InputError), folder.preparing():
        raise InputError("too little text")
    assert not list(tmp_path.iterdir())
    folder = RunFolder.open(tmp_path / "out", identity=IDENTITY)
    (folder.checkpoints / "checkpoint-9").mkdir()
    with pytest.raises(InputError), folder.preparing():
        raise InputError("too little text")
    assert folder.partial.is_dir()


def test_what_is_written_aside_is_there_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with written_aside(out) as folder:
        write_model(folder)
        assert not out.exists()
    with pytest.raises(InputError, match="exists; choose another --out"), written_aside(out):
        pass
    with written_aside(out, overwrite=True) as folder:
        (folder / "new").write_text("")
        assert tree(out) == {"model.safetensors"}
    assert tree(tmp_path) == {"deep/out/new"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("stop", [OSError("disk full"), KeyboardInterrupt(), InputError("cannot be used")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_whole_leaves_nothing_aside(tmp_path: Path, stop: BaseException, overwrite: bool) -> None:
    if overwrite:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(type(stop)), written_aside(tmp_path / "out", overwrite=overwrite) as folder:
        stopped(folder, stop)
    assert tree(tmp_path) == ({"out/old"} if overwrite else set())
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * overwrite


def test_an_output_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name == "final":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(KeyboardInterrupt), written_aside(out, overwrite=True) as folder:
        write_model(folder)
    assert tree(tmp_path) == {"out/old"}


@pytest.mark.parametrize("out", ["file/out", "/proc/none/out", "a" * 300, "a" * 250])
def test_where_nothing_can_be_written_aside_is_said_at_once(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made: .*; choose another --out"), written_aside(tmp_path / out):
        pass
    assert tree(tmp_path) == {"file"}


HOLDER = """
import sys, time
from affinage.training.run_folder import RunFolder
RunFolder.open(sys.argv[1], identity={"a": 1})
print("held", flush=True)
time.sleep(60)
"""


def test_two_processes_are_not_at_one_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another process is at this run; wait until it has ended"):
            RunFolder.open(out, identity={"a": 1})
        other.kill()
    folder = RunFolder.open(out, identity={"a": 1})  # who was killed holds nothing
    assert RunFolder.open(out, identity={"a": 1}) == folder  # and this process may come again

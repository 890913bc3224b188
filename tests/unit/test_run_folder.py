"""A run's folder: refused at once where it cannot be used, whole or absent at the end, resumed when interrupted."""

import json
from pathlib import Path

import pytest

from affinage.errors import InputError
from affinage.training.run_folder import RunFolder, written_aside

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
    with pytest.raises(InputError, match="cannot be made: "):
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
        (folder.checkpoints / f"checkpoint-{step}").mkdir()
        (folder.checkpoints / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"")
    state = json.dumps({"global_step": 9})
    assert folder.last_checkpoint() is None
    (folder.checkpoints / "checkpoint-9" / "trainer_state.json").write_text(state)
    (folder.checkpoints / "checkpoint-10" / "trainer_state.json").write_text(state)
    (folder.checkpoints / "checkpoint-100" / "trainer_state.json").write_text(state[:5])
    assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-10"


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
    with pytest.raises(InputError, match="cannot be made: "), written_aside(tmp_path / out):
        pass
    assert tree(tmp_path) == {"file"}

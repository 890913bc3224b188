"""The teacher's states on disk: what was put comes back, what is not whole is not there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from affinage.distillation.cache import TeacherCache
from affinage.errors import InputError

VARIANTS, ROWS, TOKENS, WIDTH = 2, 5, 3, 4


def cache(folder: Path, *, dtype: str = "float32", made_of: str = "teacher and corpus") -> TeacherCache:
    return TeacherCache(
        folder,
        variants=VARIANTS,
        rows=ROWS,
        tokens=TOKENS,
        width=WIDTH,
        dtype=dtype,
        made_of=made_of,  # type: ignore[arg-type]
    )


def states(seed: int, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_what_was_put_comes_back_in_another_process_and_order(tmp_path: Path) -> None:
    first = states(1)
    assert torch.equal(cache(tmp_path / "c").put([0, 1], [4, 4], first), first)
    again = cache(tmp_path / "c")
    found = again.get([1, 0], [4, 4])
    assert found is not None
    assert torch.equal(found, first.flip(0))
    assert again.get([0, 0], [4, 3]) is None
    assert again.get([1], [3]) is None


def test_in_float16_the_first_pass_sees_what_later_ones_do(tmp_path: Path) -> None:
    kept = cache(tmp_path / "c", dtype="float16")
    given = kept.put([0, 0], [0, 1], states(2))
    assert torch.equal(given, states(2).half().float())
    found = kept.get([0, 0], [0, 1])
    assert found is not None
    assert torch.equal(found, given)


def test_a_row_that_is_not_whole_is_not_there(tmp_path: Path) -> None:
    kept = cache(tmp_path / "c")
    kept.put([0, 0], [0, 1], states(3))
    file = np.memmap(tmp_path / "c" / "states.bin", np.float32, "r+", shape=(VARIANTS * ROWS, TOKENS, WIDTH))
    file[1, 2, 3] += 1
    assert cache(tmp_path / "c").get([0], [1]) is None
    assert cache(tmp_path / "c").get([0], [0]) is not None


def test_the_cache_of_something_else_is_refused(tmp_path: Path) -> None:
    cache(tmp_path / "c")
    with pytest.raises(InputError, match="made of something else"):
        cache(tmp_path / "c", made_of="another teacher")
    with pytest.raises(InputError, match="made of something else"):
        cache(tmp_path / "c", dtype="float16")


def test_of_two_processes_that_make_it_at_once_the_first_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the second are ready when the first has put its own in place, and rows in them."""
    first, put, rename = list[TeacherCache](), states(4), Path.rename

    def late(self: Path, target: Path) -> Path:
        if not first:
            monkeypatch.setattr(Path, "rename", rename)
            first.append(cache(tmp_path / "c"))
            first[0].put([0, 0], [0, 1], put)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    found = cache(tmp_path / "c").get([0, 0], [0, 1])
    assert found is not None and torch.equal(found, put)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_where_there_is_no_room_it_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be made"):
        TeacherCache(tmp_path / "c", variants=1, rows=2**40, tokens=512, width=768, dtype="float32", made_of="too much")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        cache(tmp_path / "file")

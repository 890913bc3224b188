"""Threads: no more than a container may use, a share for each process of a machine, and what is asked for is obeyed."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from affinage.training import threads as module
from affinage.training.threads import settle_threads, usable_cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine of 16 cores without limits, where torch takes 16 threads."""
    monkeypatch.setattr(module, "CGROUPS", tmp_path)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    yield tmp_path
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "3200000 100000\n"}, 16),
        ({"cpu.max": "what is this"}, 16),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
    ],
)
def test_the_cores_of_a_container(groups: Path, files: dict[str, str], cores: float) -> None:
    for name, text in files.items():
        (groups / name).parent.mkdir(exist_ok=True)
        (groups / name).write_text(text)
    assert usable_cores() == cores
    assert settle_threads() == torch.get_num_threads() == math.floor(cores)


@pytest.mark.parametrize(("processes", "expected"), [("1", 16), ("2", 8), ("3", 5), ("32", 1)])
def test_processes_share_the_cores(
    groups: Path, monkeypatch: pytest.MonkeyPatch, processes: str, expected: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert settle_threads() == expected


def test_fewer_threads_than_cores_are_not_raised(groups: Path) -> None:
    torch.set_num_threads(3)
    assert settle_threads() == 3


def test_what_is_asked_for_is_obeyed_and_idle_cores_are_named(
    groups: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (groups / "cpu.max").write_text("400000 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    with caplog.at_level(logging.INFO, "affinage"):
        assert settle_threads() == 16
        assert not caplog.messages
        torch.set_num_threads(1)  # as torchrun has it
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        assert settle_threads() == 1
    assert caplog.messages == ["one thread a process; this machine has cores for more: OMP_NUM_THREADS=2"]

"""The benchmark's parts: interleaved rounds, ratios, rows, energy, memory, and the process that is fresh."""

import gc
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from affinage.errors import InputError
from affinage.runtime import fresh, memory
from affinage.runtime.benchmark import Timing, interleave
from affinage.runtime.energy import EnergyCounters, joules_per_1000_texts
from affinage.runtime.forward import TorchForward
from affinage.runtime.workload import Vocabulary, batches, mixed_lengths, same_rows
from tiny import ARCHITECTURES, save_tiny, tiny_model, tiny_tokenizer


class Machine:
    """A clock that only computing moves: model m takes `costs[m]` seconds a step, times the step's number + 1."""

    def __init__(self, *costs: float) -> None:
        self.now = 0.0
        self.costs = costs
        self.seen: list[tuple[int, int]] = []

    def run(self, model: int, step: int) -> None:
        self.seen.append((model, step))
        self.now += self.costs[model] * (step + 1)

    def clock(self) -> float:
        return self.now


def time_on(machine: Machine, **settings: Any) -> Timing:
    values = {"models": len(machine.costs), "warmup": 0, "repeats": 4, "seconds": 1e9, **settings}
    return interleave(machine.run, clock=machine.clock, **values)


def test_models_take_turns_and_who_begins_rotates() -> None:
    machine = Machine(1.0, 2.0, 4.0)
    timing = time_on(machine)
    assert [model for model, _ in machine.seen] == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]
    assert timing.seconds.tolist() == [[[1.0, 2.0, 4.0]]] * 4
    steps = Machine(1.0, 2.0)
    timing = time_on(steps, steps=2, repeats=2)
    assert steps.seen == [(0, 0), (1, 0), (1, 1), (0, 1), (1, 0), (0, 0), (0, 1), (1, 1)]
    assert timing.round_seconds(1).tolist() == [6.0, 6.0]
    assert timing.median_round(0) == 3.0
    assert timing.runs == 4


def test_the_warmup_is_not_counted() -> None:
    machine = Machine(1.0)
    assert time_on(machine, warmup=5, repeats=2).runs == 2
    assert len(machine.seen) == 7


@pytest.mark.parametrize(("repeats", "seconds", "rounds"), [(30, 10.0, 10), (30, 0.5, 3), (2, 0.5, 2), (4, 1e9, 4)])
def test_the_time_limit_leaves_three_rounds(repeats: int, seconds: float, rounds: int) -> None:
    told: list[int] = []
    timing = time_on(Machine(0.25, 0.75), repeats=repeats, seconds=seconds, warmup=9, on_round=lambda: told.append(1))
    assert timing.runs == rounds == len(told)


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was(on: bool) -> None:
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(ZeroDivisionError):
            interleave(lambda *_: 1 / gc.isenabled(), models=1, warmup=1, repeats=1, seconds=1.0)
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()


def test_quantiles_are_the_statistics_modules() -> None:
    times = np.random.default_rng(1).lognormal(size=(37, 1, 2))
    timing = Timing(times)
    for model in (0, 1):
        steps = times[:, 0, model].tolist()
        assert timing.quantile_ms(model, 0.5) == pytest.approx(1e3 * statistics.median(steps))
        expected = statistics.quantiles(steps, n=20, method="inclusive")[18]
        assert timing.quantile_ms(model, 0.95) == pytest.approx(1e3 * expected)


def test_what_slows_both_leaves_the_ratio_alone() -> None:
    noise = np.random.default_rng(2).lognormal(sigma=2, size=(20, 3, 1))
    assert Timing(noise * [3.0, 2.0]).ratio(1) == pytest.approx((1.5, 1.5, 1.5))


def test_the_interval_of_a_ratio_is_scipys_percentile_bootstrap() -> None:
    times = np.random.default_rng(3).lognormal(sigma=0.2, size=(31, 1, 2))
    ratios = times[:, 0, 0] / times[:, 0, 1]
    ratio, low, high = Timing(times).ratio(1)
    found = bootstrap((ratios,), np.median, n_resamples=4000, method="percentile", rng=np.random.default_rng(4))
    assert ratio == statistics.median(ratios)
    assert (low, high) == pytest.approx((found.confidence_interval.low, found.confidence_interval.high), rel=0.03)
    assert low < ratio < high


def test_the_committed_list_is_like_text() -> None:
    lengths = mixed_lengths()
    assert len(lengths) == 400
    assert (min(lengths), max(lengths)) == (4, 256)
    assert statistics.mean(lengths) == pytest.approx(40, abs=0.5)
    assert statistics.median(lengths) < 32  # skewed: many short, few long


def test_every_model_gets_the_same_pieces_between_its_own_special_tokens() -> None:
    tokenizers = [tiny_tokenizer(a) for a in ARCHITECTURES]
    configs = [tiny_model(a).config for a in ARCHITECTURES]
    vocabularies = [Vocabulary.of(*pair) for pair in zip(tokenizers, configs, strict=True)]
    lengths = [3, 40, 17]
    rows = same_rows(lengths, vocabularies, seed=5)
    for tokenizer, own in zip(tokenizers, rows, strict=True):
        assert [len(row) for row in own] == lengths
        for row, first in zip(own, rows[0], strict=True):
            assert (row[0], row[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            assert row[1:-1].tolist() == first[1:-1].tolist()
            assert not set(row[1:-1].tolist()) & set(tokenizer.all_special_ids)
            assert max(row) < len(tokenizer)
    again = same_rows(lengths, vocabularies[:1], seed=5)[0]
    assert [len(row) for row in again] == lengths
    with pytest.raises(InputError, match="share no ordinary token ids"):
        same_rows([3], [Vocabulary(2, frozenset({0, 1}), 0, 1, 0)], seed=0)


def test_batches_are_sorted_by_length_and_padded() -> None:
    rows = [np.arange(5, 5 + n) for n in (3, 7, 4, 6)]
    first, second = batches(rows, size=2, pad=1)
    assert first.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 9, 10, 1]]
    assert first.attention_mask.tolist() == [[1] * 7, [1] * 6 + [0]]
    assert second.input_ids.tolist() == [[5, 6, 7, 8], [5, 6, 7, 1]]
    assert (first.tokens, second.tokens) == (13, 7)
    assert [len(batch.input_ids) for batch in batches(rows, size=3, pad=1)] == [3, 1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("head", ["sequence", "token", "span", "mlm", "base"])
def test_what_is_run_is_the_stock_model(architecture: str, head: str, tmp_path: Path) -> None:
    stock = tiny_model(architecture, head)
    input_ids = np.array([[5, 9, 7, 6], [5, 8, 1, 1]], np.int64)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int64)
    before = torch.get_num_threads()
    with TorchForward.load(save_tiny(tmp_path, architecture, head), threads=before + 1) as forward:
        assert torch.get_num_threads() == before + 1
        found = forward.run(input_ids, mask)
    assert torch.get_num_threads() == before
    network = stock.base_model if head == "mlm" else stock  # the vocabulary head is left out
    with torch.inference_mode():
        expected = network(input_ids=torch.tensor(input_ids), attention_mask=torch.tensor(mask))[0].numpy()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1].ravel()[:2], expected[1].ravel()[:2], rtol=1e-5, atol=1e-6)


def test_threads_are_restored_where_a_model_cannot_be_loaded(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with pytest.raises(InputError), TorchForward.load(tmp_path, threads=before + 1):
        raise AssertionError("there is no model")
    assert torch.get_num_threads() == before


def sysfs(root: Path, domains: dict[str, tuple[str, int, int]]) -> Path:
    """A tree as Linux shows it: folder -> (name, microjoules, range)."""
    for folder, (name, energy, span) in domains.items():
        (root / folder).mkdir(parents=True)
        (root / folder / "name").write_text(f"{name}\n")
        (root / folder / "energy_uj").write_text(f"{energy}\n")
        (root / folder / "max_energy_range_uj").write_text(f"{span}\n")
    return root


def add(file: Path, microjoules: int, *, span: int) -> None:
    file.write_text(f"{(int(file.read_text()) + microjoules) % span}\n")


TWO = {
    "intel-rapl:0": ("package-0", 900, 1_000),
    "intel-rapl:0:0": ("core", 5, 1_000),
    "intel-rapl:0:1": ("dram", 5, 1_000),
    "intel-rapl:1": ("package-1", 100, 5_000_000),
    "intel-rapl:2": ("psys", 5, 1_000),
    "intel-rapl-mmio:0": ("package-0", 900, 1_000),
}


def test_joules_of_the_packages_are_added_and_counters_begin_again(tmp_path: Path) -> None:
    root = sysfs(tmp_path, TWO)
    counters = EnergyCounters.find(root)
    assert counters is not None
    assert [file.parent.name for file in counters.files] == ["intel-rapl:0", "intel-rapl:1"]

    def work() -> None:
        for folder, (_, _, span) in TWO.items():
            add(root / folder / "energy_uj", 300_000 if span > 1_000 else 300, span=span)

    # 300 microjoules over the border of 1,000 at 900, and 300,000 of the second package.
    assert counters.joules(work) == pytest.approx(0.3003)


def test_joules_are_told_by_1000_texts_model_by_model(tmp_path: Path) -> None:
    root = sysfs(tmp_path, {"intel-rapl:0": ("package-0", 0, 10**12)})
    file = root / "intel-rapl:0" / "energy_uj"
    growing = itertools.count(1)
    passes = [
        lambda: add(file, 4_000_000 * next(growing), span=10**12),  # 4 J in the first round, 8 J in the second
        lambda: add(file, 1_000_000, span=10**12),
        lambda: None,
    ]
    found = joules_per_1000_texts(passes, texts=400, counters=EnergyCounters.find(root))
    assert found == pytest.approx([15.0, 2.5, 0.0])
    assert joules_per_1000_texts(passes, texts=400, counters=None) == [None, None, None]

    counters = EnergyCounters.find(root)
    lost = joules_per_1000_texts([lambda: file.unlink(missing_ok=True), lambda: None], texts=400, counters=counters)
    assert lost == [None, None]


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj", "name"])
def test_a_machine_that_does_not_let_its_energy_be_read(tmp_path: Path, missing: str) -> None:
    assert EnergyCounters.find(tmp_path / "nothing") is None
    root = sysfs(tmp_path, TWO)
    (root / "intel-rapl:1" / missing).unlink()  # as unreadable as what only root may read
    assert EnergyCounters.find(root) is None
    assert EnergyCounters.find(sysfs(tmp_path / "other", {"intel-rapl:0": ("psys", 1, 9)})) is None


def test_peak_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t  42 kB\nVmRSS:\t  41 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    assert memory.peak_memory_bytes() == 42 * 1024
    monkeypatch.setattr(memory, "STATUS", tmp_path / "nothing")
    assert memory.peak_memory_bytes() > 10 * 2**20


@pytest.mark.skipif(not memory.STATUS.is_file(), reason="needs Linux's /proc")
def test_a_child_does_not_inherit_its_parents_peak() -> None:
    ours = memory.peak_memory_bytes()  # torch is in it
    code = "from affinage.runtime.memory import peak_memory_bytes as p; print(p())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < ours / 2


def test_a_fresh_process_that_fails_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends_with(result: Any) -> str:
        def run(*_: Any, **__: Any) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(fresh.subprocess, "run", run)
        with pytest.raises(InputError, match="model 'm': the process that measures its load time") as caught:
            fresh.fresh_cost("m", [], engine=TorchForward.engine, threads=1)
        return str(caught.value)

    def done(code: int, out: str = "", err: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], code, stdout=out, stderr=err)

    assert ends_with(done(1, err="Traceback …\n  somewhere\nMemoryError: too much\n")).endswith(
        ": MemoryError: too much"
    )
    assert "signal 9; was there memory enough" in ends_with(done(-9))
    assert "exit code 3" in ends_with(done(3))
    for out in ("", "no json", json.dumps({"load_seconds": 1})):
        assert "it gave no answer" in ends_with(done(0, out))
    assert "30 minutes" in ends_with(subprocess.TimeoutExpired("python", 1800))
    assert "cannot be started: No such file" in ends_with(FileNotFoundError(2, "No such file or directory"))

"""The page on what to use when is made from the committed results, and says so where there are none."""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from affinage.compression.base import compressors
from affinage.compression.plan import Plan, step_of
from affinage.compression.space import trained_once

FOLDER = Path(__file__).parents[2] / "benchmarks" / "compression"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], dict[str, Any]]]:
    """What a file of the folder defines."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "jobs", raising=False)
    yield lambda name: runpy.run_path(str(FOLDER / name))
    monkeypatch.delitem(sys.modules, "jobs", raising=False)  # benchmarks/recipes has one of that name


@pytest.fixture
def page(script: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return script("page.py")


def result(name: str, task: str, value: float, *, stage: str = "final", seed: int = 0, **more: Any) -> dict[str, Any]:
    scores = [
        {"model": model, "part": part, "value": score}
        for part, shift in (("valid", 0.05), *([("test", 0.0)] if stage == "final" else []))
        for model, score in (("variant", value + shift), ("student", 0.85), ("teacher", 0.9))
    ]
    kept = value / 0.9
    made = {"language": "fr", "task": task, "stage": stage, "name": name, "seed": seed, "scores": scores,
            "kept": {"value": kept, "low": kept - 0.03, "high": kept + 0.03}, "speedup": {"ratio": 16.0},
            "size_bytes": 5_000_000, "teacher_bytes": 65_000_000, "conditions": {"cpu": "a processor"}}  # fmt: skip
    return made | more


def test_the_page_is_made_from_the_results(page: dict[str, Any]) -> None:
    text = page["PAGE"].read_text(encoding="utf-8")
    assert page["page"](text, page["read"](page["RESULTS"])) == text, "run python benchmarks/compression/page.py"


def test_what_has_not_been_run_is_said(page: dict[str, Any]) -> None:
    text = page["text"]([])
    assert text.count("**The final has not been run yet**") == text.count("**The screen has not been run yet**") == 2
    assert "reached" not in text and "| `" not in text


def test_an_unfinished_final_recommends_nothing(page: dict[str, Any]) -> None:
    text = page["text"]([result("int8", "sentiment", 0.9)])
    assert "**The final is unfinished**: 1 of 144 jobs" in text and "Timed on a processor, beside the jobs" in text
    assert (
        "reached" not in text and "| A | `int8` | 100.0 (97.0 to 103.0) | 0.0 | 100.0 | 16.00 | 13.00 | 1 | 1 |" in text
    )


def test_a_whole_one_says_which_aims_are_reached_and_what_is_nearest(page: dict[str, Any]) -> None:
    every = [(task, seed) for task in ("sentiment", "qa", "ner") for seed in (0, 1, 2)]
    good = [result("good", task, 0.88, seed=seed) for task, seed in every]
    slow = [result("slow", task, 0.899, seed=seed, speedup={"ratio": 4.0}) for task, seed in every]
    text = page["text"](good + slow)
    assert "at most 3.5 % lost, at least 15× faster and 12× smaller: **reached** by `good`." in text
    assert (
        "at most 1 % lost, at least 8× faster and 6× smaller: **not reached** so far; nearest `slow`: 4.0×, 13.0×."
        in text
    )
    assert "| B | `good` | 97.8 (96.0 to 99.5) | 2.2 | 97.8 | 16.00 | 13.00 | 3 | 3 |" in text
    assert "| at most 1 % less than the teacher, the most times faster | none | `slow` (99.9 %, 4.0×, 13.0×) |" in text
    assert (
        "| at most 3.5 % less than the teacher, the most times faster | none | `good` (97.8 %, 16.0×, 13.0×) |" in text
    )


def test_a_task_above_the_teacher_makes_up_for_no_other(page: dict[str, Any]) -> None:
    scores = {"sentiment": 1.2, "qa": 0.8, "ner": 0.855}
    found = [result("good", task, value, seed=seed) for task, value in scores.items() for seed in (0, 1, 2)]
    (one,) = page["variants"](found, "final")
    assert one.kept == pytest.approx((1.2 + 0.8 + 0.855) / 2.7) and one.kept > 1
    assert one.lost == pytest.approx((1 - 0.8 / 0.9 + 1 - 0.855 / 0.9) / 3)
    text = page["text"](found)
    assert "faster and 12× smaller: **not reached** so far." in text and "**reached**" not in text
    assert "| at most 10 % less than the teacher, the most times faster | none | `good` (105.7 %" in text


def test_the_screen_is_read_on_the_valid_part(page: dict[str, Any]) -> None:
    found = [("binary", "qa", 0.2), ("prune-heads-keep0.75", "qa", 0.625), ("prune-heads-keep0.75", "sentiment", 0.85),
             ("prune-heads-keep0.25", "qa", 0.45)]  # fmt: skip
    text = page["text"]([result(*one, stage="screen") for one in found])
    heads = "| `prune-heads` | `keep=0.75` / `keep=0.5` / `keep=0.25` | 87.5 / – / 55.6 | 75.0 / – / 55.6 |"
    assert heads in text and "| `binary` | as it comes / `embeddings=false` |" in text and "| `svd` |" not in text
    assert "Lost more than 20 % of it: `prune-heads-keep0.25`, `binary`." in text


def test_every_method_is_screened_and_every_plan_can_run(page: dict[str, Any]) -> None:
    made = runpy.run_path(str(FOLDER / "experiment.py"))
    assert set(made["SCREEN"]) == {entry.name for entry in compressors.entries()}
    assert sum(len(steps) > 1 for steps in made["STACKS"].values()) >= 10 and len(made["stacks"]("en")) <= 20
    found = made["jobs"](("en", "fr"), ("screen", "final"))
    assert len({job.out for job in found}) == len(found)
    for job in found:
        steps = [step_of(text) for text in job.steps]
        assert trained_once(Plan.of({"steps": ["int8"]}), steps, recover=job.recover).checked()


def test_speeds_are_those_of_the_run_that_timed_all_of_them(page: dict[str, Any]) -> None:
    """Jobs of several machines cannot be compared; until all are timed anew theirs stand there, and it says so."""
    some = [result("a", "qa", 0.9, stage="screen"), result("b", "qa", 0.9, stage="screen", conditions={"cpu": "other"})]
    anew = [
        result(name, "sentiment", 0.9, stage="speed", speedup={"ratio": 7.5}, conditions={"cpu": "a third"})
        for name in "ab"
    ]
    assert "Timed on a processor (1 jobs) and other (1 jobs), beside" in page["text"](some)
    assert "Timed on a processor (1 jobs) and other (1 jobs), beside" in page["text"](some + anew[:1])
    assert {v.faster for v in page["variants"](some + anew[:1], "screen")} == {16.0}
    assert "Timed on a third, one after the other, with nothing else running." in page["text"](some + anew)
    assert {v.faster for v in page["variants"](some + anew, "screen")} == {7.5}


def test_a_whole_screen_is_drawn_with_what_nothing_beats_numbered(page: dict[str, Any]) -> None:
    jobs = page["jobs"](("fr",), ("screen",))
    found = [
        result(job.name, job.task.name, 0.8, stage="screen", speedup={"ratio": 4.0 + i / 1000})
        for i, job in enumerate(sorted(jobs, key=lambda job: job.name))
    ]
    assert page["pictures"](found[1:]) == {}
    best = found[-1]["name"]
    assert f"kept and times faster: 1 `{best}` (94.4 %, 4.3×)." in page["text"](found)
    stacks = [result("good", task, 0.88, seed=seed) for task in ("sentiment", "qa", "ner") for seed in (0, 1, 2)]
    (picture,) = page["pictures"](found + stacks).values()
    assert picture == page["pictures"](found + stacks)["fr"] and ">A</text>" in picture and ">1</text>" in picture


def test_methods_that_cost_much_however_mildly_they_are_used_are_named(page: dict[str, Any]) -> None:
    """The student has 85 of the teacher's 90; three hundredths of that are 2.55. On the valid part all have 5 more."""
    figures = {"svd": (0.75, 0.77), "tucker": (0.78, 0.65), "albert": (0.76, 0.75)}
    found = [
        result(page["variant_name"](method, strength), task, score, stage="screen")
        for method, scores in figures.items()
        for strength, score in zip(page["SCREEN"][method], scores, strict=False)
        for task in ("sentiment", "qa")
    ]
    said = "at every strength (what the mildest loss leaves of it): `albert` (95.3 %), `svd` (96.5 %)."
    assert said in page["text"](found)
    assert "Cost more" not in page["text"](found[::2])


def test_what_nothing_beats_leaves_out_what_lacks_a_task(page: dict[str, Any]) -> None:
    figures = {"a": (0.89, 5.0), "b": (0.89, 4.0), "c": (0.8, 6.0), "d": (0.7, 6.0)}
    found = [result(name, task, score, stage="screen", speedup={"ratio": ratio})
             for name, (score, ratio) in figures.items() for task in ("sentiment", "qa")]  # fmt: skip
    found.append(result("fast", "qa", 0.9, stage="screen", speedup={"ratio": 99.0}))
    best = page["on_frontier"](page["variants"](found, "screen"), lambda v: v.faster)
    assert [v.name for v in best] == ["a", "c"]


def test_the_readmes_headline_is_made_from_the_results(script: Callable[[str], dict[str, Any]]) -> None:
    made = script("headline.py")
    results = made["read"](FOLDER / "results")
    for readme in made["PAGES"]:
        text = readme.path.read_text(encoding="utf-8")
        assert made["written"](text, results, readme) == text, "run python benchmarks/compression/headline.py"


def test_the_headline_waits_for_the_whole_final_and_takes_what_does_most_for_the_aim(
    script: Callable[[str], dict[str, Any]],
) -> None:
    made = script("headline.py")
    english, french = made["PAGES"]
    stacks = dict.fromkeys(made["stacks"]("fr"), (0.85, 16.0))  # keeps 94.4 %
    stacks |= {"int8": (0.9, 9.0), "int4": (0.896, 7.0), "whole-fisher35-int4": (0.88, 20.0)}
    every = [(task, seed) for task in ("sentiment", "qa", "ner") for seed in (0, 1, 2)]
    found = [
        result(name, task, score, seed=seed, speedup={"ratio": ratio})
        for name, (score, ratio) in stacks.items()
        for task, seed in every
    ]
    assert "The experiment is running" in made["told"](found[1:], english)
    text = made["told"](found, english)
    assert "For English the experiment is [still running]" in text and "English | " not in text
    assert "Pour le modèle anglais, l'expérience est [encore en cours]" in made["told"](found, french)
    assert "| French | 1 | `int8` | 100.0 (98.3 to 101.7) | 100.0 | 9.0× | 13.0× | 3 |" in text
    assert "`int4:activations=dynamic` (the teacher itself) | 97.8 (96.0 to 99.5) | 97.8 | 20.0× | 13.0× | 3 |" in text
    assert "| français | 3,5 | `prune-fisher:keep=0.35` + `int4" in made["told"](found, french)
    assert "| 100,0 (98,3 à 101,7) | 100,0 | 9,0× | 13,0× | 3 |" in made["told"](found, french)
    poor = [one | {"kept": {"value": 0.9, "low": 0.8, "high": 1.0}} for one in found]
    assert "| French | 1 | none of the stacks tried |" in made["told"](poor, english)

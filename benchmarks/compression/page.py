"""Writes docs/compression-results.md from the results under benchmarks/compression; --check: whether it is stale."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any

from experiment import LANGUAGES, SCREEN, SEEDS, jobs, variant_name

from affinage.report.sentences import within
from affinage.report.speed import markdown

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "compression-results.md"
BEGIN = "<!-- made by `python benchmarks/compression/page.py` from the results beside it -->\n"
END = "<!-- end of what is made -->\n"
AIMS = ((0.01, 8.0, 6.0), (0.035, 15.0, 12.0))
"""largest relative loss on average, times faster, times smaller, than the teacher"""


@dataclass(frozen=True)
class Variant:
    """One variant in one language: means over its tasks and seeds."""

    language: str
    name: str
    faster: float
    smaller: float
    kept: float
    """score / teacher's, mean over tasks"""
    around: float | None
    """half of its 95 % interval; None of the screen"""
    worst: float
    """the same on its worst task"""
    tasks: int
    seeds: int
    complete: bool
    """whether every task of the stage is there with every seed"""


def read(folder: Path) -> list[dict[str, Any]]:
    """All results."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.json"))]


def variants(results: Sequence[Mapping[str, Any]], stage: str) -> list[Variant]:
    """By language and name. Screened on the valid part, reported in the final on the last part there is."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in results:
        if one["stage"] == stage:
            groups.setdefault((one["language"], one["name"]), []).append(one)
    found = []
    for (language, name), group in groups.items():
        anew = timed_anew(results, language, stage)
        by_task: dict[str, list[Mapping[str, Any]]] = {}
        for one in group:
            by_task.setdefault(one["task"], []).append(one)
        shares = [[share_kept(one, stage) for one in of] for of in by_task.values()]
        means = [mean(of) for of in shares]
        wanted = [t for t in LANGUAGES[language].tasks if t.name in LANGUAGES[language].screened or stage == "final"]
        needed = len(wanted) * (len(SEEDS) if stage == "final" else 1)
        found.append(
            Variant(
                language=language,
                name=name,
                faster=anew[name] if anew else mean(one["speedup"]["ratio"] for one in group),
                smaller=mean(one["teacher_bytes"] / one["size_bytes"] for one in group),
                kept=mean(means),
                around=around(list(by_task.values())) if stage == "final" else None,
                worst=min(means),
                tasks=len(shares),
                seeds=max(map(len, shares)),
                complete=len(group) >= needed,
            )
        )
    return sorted(found, key=lambda v: (v.language, -v.kept))


def on_frontier(found: Sequence[Variant], gain: Callable[[Variant], float]) -> list[Variant]:
    """Those with every task that no other such one beats in what is kept and what is gained; most kept first."""
    best: list[Variant] = []
    for one in sorted((v for v in found if v.complete), key=lambda v: (-v.kept, -gain(v))):
        if not best or gain(one) > gain(best[-1]):
            best.append(one)
    return best


def timed_anew(results: Sequence[Mapping[str, Any]], language: str, stage: str) -> dict[str, float]:
    """Name of a variant -> how many times faster; empty until all of the stage were timed once more on one machine."""
    own = [one for one in results if one["language"] == language]
    found = {one["name"]: one["speedup"]["ratio"] for one in own if one["stage"] == "speed"}
    return found if {one["name"] for one in own if one["stage"] == stage} <= found.keys() else {}


def share_kept(one: Mapping[str, Any], stage: str) -> float:
    """The variant's score by the teacher's: of the final on the test part, of the screen on the valid part."""
    return float(one["kept"]["value"]) if stage == "final" else by_the_teachers(one, "variant")


def by_the_teachers(one: Mapping[str, Any], model: str) -> float:
    """Score of a model of the result by the teacher's, on the last part that is there."""
    value = {score["model"]: score["value"] for score in one["scores"]}
    return float(value[model] / value["teacher"])


def around(by_task: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """Half of the 95 % interval of the mean over tasks: each task's own over its examples, which seeds share, and over
    the seeds, taken as independent of one another.
    """
    squares = []
    for group in by_task:
        examples = mean((one["kept"]["high"] - one["kept"]["low"]) / 2 for one in group)
        values = [one["kept"]["value"] for one in group]
        seeds = 1.96 * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
        squares.append(examples**2 + seeds**2)
    return sqrt(sum(squares)) / len(squares)


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """What stands between the markers."""
    blocks = []
    for name in LANGUAGES:
        blocks.append(f"### {'French' if name == 'fr' else 'English'}")
        blocks += [*_final(results, name), *_screen(results, name)]
    return "\n\n".join(blocks) + "\n"


def _final(results: Sequence[Mapping[str, Any]], language: str) -> list[str]:
    wanted = len(jobs((language,), ("final",)))
    own = [v for v in variants(results, "final") if v.language == language]
    count = sum(one["language"] == language and one["stage"] == "final" for one in results)
    if not own:
        return [f"**The final has not been run yet**: 0 of {wanted} jobs. Nothing is recommended from figures."]
    blocks = (
        [] if count >= wanted else [f"**The final is unfinished**: {count} of {wanted} jobs; means of what is there."]
    )
    for loss, faster, smaller in AIMS:
        met = [v for v in own if v.complete and v.kept >= 1 - loss and v.faster >= faster and v.smaller >= smaller]
        said = f"at most {100 * loss:g} % lost, at least {faster:g}× faster and {smaller:g}× smaller"
        if met:
            blocks.append(f"- {said}: **reached** by {', '.join(f'`{v.name}`' for v in met)}.")
        else:
            within = [v for v in own if v.complete and v.kept >= 1 - loss]
            best = max(within, key=lambda v: min(v.faster / faster, v.smaller / smaller), default=None)
            near = f"; nearest `{best.name}`: {best.faster:.1f}×, {best.smaller:.1f}×" if best else ""
            blocks.append(f"- {said}: **not reached**{near}.")
    where = f"Timed {_where(results, language, 'final')}. {_uncompressed(results, language, 'final')}"
    return [*blocks, where, _table(own), "The same by task, the mean of its seeds, %:", _by_task(results, own)]


def _uncompressed(results: Sequence[Mapping[str, Any]], language: str, stage: str) -> str:
    """What the student keeps before anything is done to it: what variants lose beside it is the methods' own."""
    shares: dict[str, list[float]] = {}
    for one in results:
        if (one["language"], one["stage"]) == (language, stage):
            shares.setdefault(one["task"], []).append(by_the_teachers(one, "student"))
    told = ", ".join(f"{100 * mean(of):.1f} on {task}" for task, of in shares.items())
    kept = mean(map(mean, shares.values()))
    return f"The uncompressed student keeps {100 * kept:.1f} % of the teacher's score ({told})."


def _by_task(results: Sequence[Mapping[str, Any]], own: Sequence[Variant]) -> str:
    tasks = [task.name for task in LANGUAGES[own[0].language].tasks]
    shares: dict[tuple[str, str], list[float]] = {}
    for one in results:
        if (one["language"], one["stage"]) == (own[0].language, "final"):
            shares.setdefault((one["name"], one["task"]), []).append(share_kept(one, "final"))
    cells = {key: f"{100 * mean(of):.1f}" for key, of in shares.items()}
    rows = [(f"`{v.name}`", *(cells.get((v.name, task), "–") for task in tasks)) for v in own]
    return markdown(("variant", *(f">{task}" for task in tasks)), rows)


def _where(results: Sequence[Mapping[str, Any]], language: str, stage: str) -> str:
    """Ratios hold on a kind of processor: which of them jobs ran on, and how many; of the stage, or all timed anew."""
    anew = timed_anew(results, language, stage)
    asked = (language, "speed" if anew else stage)
    found = Counter(one["conditions"]["cpu"] for one in results if (one["language"], one["stage"]) == asked)
    names = " and ".join(f"{name} ({count} jobs)" for name, count in found.most_common())
    how = "one after the other, with nothing else running" if anew else "beside the jobs of another core"
    return f"on {names if len(found) > 1 else next(iter(found))}, {how}"


def _screen(results: Sequence[Mapping[str, Any]], language: str) -> list[str]:
    wanted = len(jobs((language,), ("screen",)))
    own = [v for v in variants(results, "screen") if v.language == language]
    count = sum(one["language"] == language and one["stage"] == "screen" for one in results)
    if not own:
        return [f"**The screen has not been run yet**: 0 of {wanted} jobs."]
    head = (
        f"Screen, one seed, valid part, {count} of {wanted} jobs: indications, not results. Three strengths, the "
        f"mildest first. Timed {_where(results, language, 'screen')}. {_uncompressed(results, language, 'screen')}"
    )
    lost = [v for v in own if v.kept < 0.8]
    tail = [f"Lost more than a fifth: {', '.join(f'`{v.name}`' for v in lost)}."] if lost else []
    for what, gain in (("speed", lambda v: v.faster), ("size", lambda v: v.smaller)):
        best = on_frontier(own, gain)
        told = ", ".join(f"`{v.name}` ({100 * v.kept:.1f} %, {gain(v):.1f}×)" for v in best)
        tail += [f"Beaten by no other method alone, score against {what}: {told}."] if best else []
    return [head, _screen_table(own), *tail]


def _screen_table(own: Sequence[Variant]) -> str:
    """A method a line, its strengths beside one another; what has not been run is a dash."""
    found = {v.name: v for v in own}
    rows = []
    for method, strengths in SCREEN.items():
        variants = [found.get(variant_name(method, strength)) for strength in strengths]
        if any(variants):
            cells = (
                " / ".join("–" if v is None else of(v) for v in variants)
                for of in (
                    lambda v: f"{100 * v.kept:.1f}",
                    lambda v: f"{100 * v.worst:.1f}",
                    lambda v: f"{v.faster:.1f}",
                    lambda v: f"{v.smaller:.1f}",
                )
            )
            said = " / ".join(f"`{strength}`" if strength else "as it comes" for strength in strengths)
            rows.append((f"`{method}`", said, *cells, str(max(v.tasks for v in variants if v))))
    columns = (
        "method",
        "strengths",
        ">kept, mean %",
        ">kept, worst task %",
        ">times faster",
        ">times smaller",
        ">tasks",
    )
    return markdown(columns, rows)


def _table(found: Sequence[Variant]) -> str:
    columns = ("variant", ">kept, mean %", ">kept, worst task %", ">times faster", ">times smaller", ">tasks", ">seeds")
    rows = [
        (f"`{v.name}`", told(v), f"{100 * v.worst:.1f}", f"{v.faster:.2f}", f"{v.smaller:.2f}",
         str(v.tasks), str(v.seeds))
        for v in found
    ]  # fmt: skip
    return markdown(columns, rows)


def told(v: Variant) -> str:
    """What is kept, in %, with its interval."""
    if v.around is None:
        return f"{100 * v.kept:.1f}"
    return f"{100 * v.kept:.1f}{within(v.kept - v.around, v.kept + v.around)}"


def page(before: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The page with what is made replaced."""
    head, _, rest = before.partition(BEGIN)
    return f"{head}{BEGIN}\n{text(results)}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    before = PAGE.read_text(encoding="utf-8")
    after = page(before, read(RESULTS))
    if "--check" in sys.argv:
        print("" if before == after else f"{PAGE.name} is stale: run python benchmarks/compression/page.py")
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

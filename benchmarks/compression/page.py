"""Writes docs/compression-results.md from the results under benchmarks/compression; --check: whether it is stale."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import LANGUAGES, SCREEN, WHOLE, jobs, variant_name
from plot import AXES, LEAST, drawn, letter
from variants import AIMS, Variant, by_the_teachers, mean, on_frontier, read, share_kept, timed_anew, variants

from affinage.report.sentences import within
from affinage.report.speed import markdown

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "compression-results.md"
BEGIN = "<!-- made by `python benchmarks/compression/page.py` from the results beside it -->\n"
END = "<!-- end of what is made -->\n"
DEAR, LOST = 0.97, 0.8
"""of what the student has: methods that keep less at every strength, and variants that keep less, are named"""
PICTURE = "compression-{language}.svg"
"""beside the page"""


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """What stands between the markers."""
    blocks = _advice(results)
    for name in LANGUAGES:
        blocks.append(f"### {_called(name)}")
        blocks += [_shown(name)] if name in pictures(results) else []
        blocks += [*_final(results, name), *_screen(results, name)]
    return "\n\n".join(blocks) + "\n"


def _called(language: str) -> str:
    return "French" if language == "fr" else "English"


def _advice(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the final's variants with all tasks and seeds the fastest and the smallest for what may be lost."""
    whole = {name: [v for v in variants(results, "final") if v.language == name and v.complete] for name in LANGUAGES}
    if not any(whole.values()):
        return []
    rows = []
    for loss in (AIMS[0][0], AIMS[1][0], 0.1):
        for what, gain in AXES:
            cells = []
            for own in whole.values():
                able = [v for v in own if v.lost <= loss]
                best = max(able, key=gain) if able else None
                cells.append(_short(best) if best else "none")
            rows.append((f"at most {100 * loss:g} % less than the teacher, the most {what}", *cells))
    return [
        "Of the stacks below, by what is lost on the mean of tasks, where one above the teacher makes up for no other "
        "(kept, times faster, times smaller):",
        markdown(("wish", *map(_called, whole)), rows),
    ]


def _short(v: Variant) -> str:
    return f"`{v.name}` ({100 * v.kept:.1f} %, {v.faster:.1f}×, {v.smaller:.1f}×)"


def pictures(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Language -> its SVG, of those whose screen is whole."""
    found = {}
    for name in LANGUAGES:
        screen, final = ([v for v in variants(results, stage) if v.language == name] for stage in ("screen", "final"))
        if {v.name for v in screen if v.complete} == {job.name for job in jobs((name,), ("screen",))}:
            found[name] = drawn(screen, final, name)
    return found


def _shown(language: str) -> str:
    return (
        f"![kept against times faster and times smaller, as tabled below]({PICTURE.format(language=language)})\n\n"
        "Circles: methods alone (screen), numbered as in the lists of those that no other beats. Diamonds: stacks "
        "(final), lettered as in their table, with 95 % intervals. Grey: beaten by another of its kind. Crosses: the "
        f"aims. What keeps less than {LEAST:g} % stands on the lowest line."
    )


def _final(results: Sequence[Mapping[str, Any]], language: str) -> list[str]:
    wanted = len(jobs((language,), ("final",)))
    own = [v for v in variants(results, "final") if v.language == language]
    count = sum(one["language"] == language and one["stage"] == "final" for one in results)
    if not own:
        return [f"**The final has not been run yet**: 0 of {wanted} jobs. Nothing is recommended from figures."]
    blocks = (
        [] if count >= wanted else [f"**The final is unfinished**: {count} of {wanted} jobs; means of what is there."]
    )
    whole = [v for v in own if v.complete]
    # A variant that lacks tasks or seeds has neither met an aim nor missed it.
    for loss, faster, smaller in AIMS if whole else ():
        met = [v for v in whole if v.lost <= loss and v.faster >= faster and v.smaller >= smaller]
        said = f"at most {100 * loss:g} % lost, at least {faster:g}× faster and {smaller:g}× smaller"
        if met:
            blocks.append(f"- {said}: **reached** by {', '.join(f'`{v.name}`' for v in met)}.")
        else:
            within = [v for v in whole if v.lost <= loss]
            best = max(within, key=lambda v: min(v.faster / faster, v.smaller / smaller), default=None)
            near = f"; nearest `{best.name}`: {best.faster:.1f}×, {best.smaller:.1f}×" if best else ""
            blocks.append(f"- {said}: **not reached**{'' if count >= wanted else ' so far'}{near}.")
    where = f"Timed {_where(results, language, 'final')}. {_uncompressed(results, language, 'final')}"
    return [*blocks, where, _table(own), "The same by task, the mean of its seeds, %:", _by_task(results, own)]


def _uncompressed(results: Sequence[Mapping[str, Any]], language: str, stage: str) -> str:
    """What variants lose beside this is the methods' own."""
    shares = _students(results, language, stage)
    told = ", ".join(f"{100 * share:.1f} on {task}" for task, share in shares.items())
    return f"The uncompressed student keeps {100 * mean(shares.values()):.1f} % of the teacher's score ({told})."


def _students(results: Sequence[Mapping[str, Any]], language: str, stage: str) -> dict[str, float]:
    """Task -> what the student keeps of the teacher's score before anything is done to it."""
    shares: dict[str, list[float]] = {}
    for one in results:
        if (one["language"], one["stage"]) == (language, stage) and not one["name"].startswith(WHOLE):
            shares.setdefault(one["task"], []).append(by_the_teachers(one, "student"))
    return {task: mean(of) for task, of in shares.items()}


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
    tail = _did_not_work(own, mean(_students(results, language, "screen").values()))
    for what, gain in AXES:
        best = on_frontier(own, gain)
        told = ", ".join(f"{i} `{v.name}` ({100 * v.kept:.1f} %, {gain(v):.1f}×)" for i, v in enumerate(best, 1))
        tail += [f"Beaten by no other method alone in what is kept and {what}: {told}."] if best else []
    return [head, _screen_table(own), *tail]


def _did_not_work(own: Sequence[Variant], student: float) -> list[str]:
    """Methods that cost much however mildly they are used, and strengths that cost most of all."""
    found = {v.name: v for v in own}
    dear = {}
    for method, strengths in SCREEN.items():
        tried = [v for strength in strengths if (v := found.get(variant_name(method, strength)))]
        if tried and all(v.complete for v in tried) and (best := max(v.kept for v in tried) / student) < DEAR:
            dear[method] = best
    listed = ", ".join(f"`{name}` ({100 * kept:.1f} %)" for name, kept in sorted(dear.items(), key=lambda one: one[1]))
    lost = ", ".join(f"`{v.name}`" for v in own if v.kept < LOST * student)
    cost = f"Cost more than {100 - 100 * DEAR:.0f} % of what the uncompressed student has"
    return [
        *([f"{cost}, at every strength (what the mildest loss leaves of it): {listed}."] if dear else []),
        *([f"Lost more than {100 - 100 * LOST:.0f} % of it: {lost}."] if lost else []),
    ]


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
    columns = (
        "",
        "variant",
        ">kept, mean %",
        ">lost, mean %",
        ">kept, worst task %",
        ">times faster",
        ">times smaller",
        ">tasks",
        ">seeds",
    )
    rows = [
        (letter(i), f"`{v.name}`", told(v), f"{100 * v.lost:.1f}", f"{100 * v.worst:.1f}", f"{v.faster:.2f}",
         f"{v.smaller:.2f}", str(v.tasks), str(v.seeds))
        for i, v in enumerate(found)
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
    results = read(RESULTS)
    after = page(before, results)
    if "--check" in sys.argv:
        print("" if before == after else f"{PAGE.name} is stale: run python benchmarks/compression/page.py")
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    for language, picture in pictures(results).items():
        (PAGE.parent / PICTURE.format(language=language)).write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

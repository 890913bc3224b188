"""The frontier of variants, and its page: points, intervals, dominated ones, a table that sorts, no network."""

import base64
import hashlib
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any

import pytest

from affinage.report.frontier import AXES, Variant, cost_of, frontier, standing
from affinage.report.frontier_page import COLUMNS, frontiers_of, sort_script, variants_of
from affinage.report.html import report_html
from affinage.report.report import Cost, Latency, Report, Score, Speedup
from affinage.report.tables import report_markdown
from tiny_runs import entry, provenance

HOSTILE = '<script src="https://x.example/a.js">|&"$\\frac{$'


def variant(name: str, score: float, ms: float, mb: float, *, peak: float | None = None, **more: Any) -> Variant:
    parts: dict[str, Any] = {
        "name": name, "plan": name, "task": "sentiment", "metric": "accuracy", "split": "valid", "score": score,
        "low": score - 0.02, "high": score + 0.02, "n": 630, "parameters": 100, "size_bytes": int(mb * 1e6),
        "latency_ms": ms, "speedup": 16 / ms, "speedup_low": 15 / ms, "speedup_high": 17 / ms, "engine": "onnxruntime",
        "memory_bytes": None if peak is None else int(peak * 1e6),
    }  # fmt: skip
    return Variant(**parts | more)


SOME = (
    variant("uncompressed", 0.90, 16, 68, peak=300, reference=True, within=None),
    variant("int8", 0.89, 7, 17, peak=180, within=True, chosen=True),
    variant("slow and bad", 0.85, 12, 40, peak=250, within=False),
    variant("small", 0.84, 9, 6, peak=170, within=True),
    variant("fast", 0.80, 3, 30, peak=190, within=True),
)


def a_report(*variants: Variant, **changed: Any) -> Report:
    parts: dict[str, Any] = {
        "command": "report", "models": (entry("runs/m", layers=6),), "variants": variants or SOME,
        "provenance": provenance("report"),
    }  # fmt: skip
    return Report(**parts | changed)


def test_the_frontier_is_what_no_other_beats() -> None:
    on = standing(SOME)
    assert {v.name: on(v) for v in SOME} == {
        "uncompressed": ["latency", "size", "memory"],
        "int8": ["latency", "size", "memory"],
        "slow and bad": [],
        "small": ["size", "memory"],
        "fast": ["latency"],
    }


def test_it_is_what_the_definition_says_for_any_points() -> None:
    rng = random.Random(4)
    points = [variant(str(i), rng.randint(0, 6) / 10, rng.randint(1, 6), rng.randint(1, 6)) for i in range(40)]
    for axis in ("latency", "size"):
        best = frontier(points, axis)  # type: ignore[arg-type]
        for one in points:
            mine = cost_of(one, axis)  # type: ignore[arg-type]
            beaten = [
                o for o in points
                if o.score >= one.score and cost_of(o, axis) <= mine  # type: ignore[operator, arg-type]
                and (o.score, cost_of(o, axis)) != (one.score, mine)  # type: ignore[arg-type]
            ]  # fmt: skip
            assert (one in best) == (not beaten)
        costs = [(cost_of(v, axis), v.score) for v in best]  # type: ignore[arg-type]
        assert costs == sorted(costs)  # type: ignore[type-var]


def test_what_was_not_measured_is_on_no_frontier() -> None:
    bare = [v.model_copy(update={"memory_bytes": None}) for v in SOME]
    assert frontier(bare, "memory") == []
    (page,) = frontiers_of(a_report(*bare))
    assert [plot.title for plot in page.plots] == ["Score against latency", "Score against size"]


class Page(HTMLParser):
    """The tags of a page with their attributes, and the cells of its sortable table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[tuple[str, list[tuple[str, str | None]]]] = []
        self._cell: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "tr":
            self.rows.append((found.get("class") or "", []))
        self._key = found.get("data-key") if tag == "td" else None
        self._cell = "" if tag == "td" and "data-key" in found else None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self.rows[-1][1].append((data.replace("\u00a0", " "), self._key))
            self._cell = None


def test_the_page_has_points_intervals_and_a_table_that_can_be_sorted() -> None:
    text = report_html(a_report())
    page = Page(text)
    assert sum(tag == "table" and attrs.get("class") == "sortable" for tag, attrs in page.tags) == 1
    rows = [(mark, cells) for mark, cells in page.rows if cells]
    assert [cells[1][0] for _, cells in rows] == [
        "uncompressed", "int8", "small", "fast",
        "slow and bad",
    ]  # fmt: skip
    assert [mark for mark, _ in rows] == ["reference", "chosen", "", "", "dominated"]
    assert all(len(cells) == len(COLUMNS) for _, cells in rows)
    assert [float(cells[2][1] or "") for _, cells in rows] == [0.90, 0.89, 0.84, 0.80, 0.85]
    assert rows[1][1][2][0] == "89.0 (87.0 to 91.0)" and rows[1][1][4][0] == "4.00"
    assert rows[1][1][6][0] == "2.29 (2.14 to 2.43)" and [cell for cell, _ in rows[4][1][-2:]] == ["dominated", "over"]
    assert text.count("<svg ") == len(AXES)
    assert "cheapest first, by the numbers of the table: 4 (80.0 % at 3.00 ms), 2 (89.0 % at 7.00 ms), 1 (9" in text


def test_dominated_points_are_grey_and_every_point_has_its_interval() -> None:
    (page,) = frontiers_of(a_report())
    svg = page.plots[0].svg
    assert "var(--floor)" in svg and "var(--series-0)" in svg and "var(--series-1)" in svg
    bare = [v.model_copy(update={"low": None, "high": None}) for v in SOME]
    (without,) = frontiers_of(a_report(*bare))
    assert svg.count("<path") - without.plots[0].svg.count("<path") >= len(SOME)
    assert "95 %" not in " ".join(without.notes)


def test_the_page_needs_no_network_and_runs_its_own_script_alone() -> None:
    hostile = [v.model_copy(update={"name": f"{v.name} {HOSTILE}"}) for v in SOME]
    text = report_html(a_report(*hostile))
    script, digest = sort_script()
    assert digest == f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    assert f"script-src {digest}" in text and text.count("<script") == 1 and f"<script>{script}</script>" in text
    assert not re.search(r"""(?:src|href)=["']?(?!#)[a-z]""", re.sub(r"&lt;.*?&gt;", "", text))
    assert "default-src 'none'" in text


_TABLE = """
const cell = (text, key) => ({
  textContent: text, dataset: {key}, said: {}, append(button) { this.button = button; },
  setAttribute(name, value) { this.said[name] = value; }, getAttribute(name) { return this.said[name] ?? null; },
  removeAttribute(name) { delete this.said[name]; },
});
const heads = [cell("variant"), cell("MB")];
const rows = [["b", 10], ["a", 9], ["c", 1e99]].map((keys) => ({cells: keys.map((key) => cell("", String(key)))}));
const body = {rows, append(...sorted) { this.rows = sorted; }};
globalThis.document = {
  querySelectorAll: () => [{tHead: {rows: [{cells: heads}]}, tBodies: [body]}],
  createElement: () => ({addEventListener(_, then) { this.click = then; }}),
};
"""
_CLICKS = """
for (const head of [heads[1], heads[1], heads[0]]) {
  head.button.click();
  const shown = body.rows.map((row) => row.cells[0].dataset.key).join("");
  console.log(shown, ...heads.map((one) => one.getAttribute("aria-sort")));
}
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_click_on_a_head_sorts_by_numbers_or_words_and_a_second_turns_the_order() -> None:
    script = _TABLE + sort_script()[0] + _CLICKS
    done = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["abc null ascending", "cba null descending", "abc ascending null"]


def test_a_report_without_a_frontier_has_no_script() -> None:
    assert "<script" not in report_html(a_report(SOME[0]))
    assert "script-src" not in report_html(a_report(SOME[0]))


@pytest.mark.parametrize("count", [2, 3])
def test_systems_of_other_verbs_make_a_frontier_from_three_on(count: int) -> None:
    names = ("teacher", "student", "tiny")[:count]
    on: dict[str, Any] = {"engine": "torch fp32", "batch": 1, "length": 128}
    report = a_report(
        models=tuple(entry(f"runs/{name}", layers=12 - i) for i, name in enumerate(names)),
        variants=(),
        scores=tuple(
            Score(model=name, task="nli", metric="accuracy", value=0.9 - i / 10, n=9) for i, name in enumerate(names)
        ),
        latency=tuple(
            Latency(model=name, threads=1, p50_ms=9 - i, p95_ms=9, tokens_per_second=1, runs=3, **on)
            for i, name in enumerate(names)
        ),
        speedups=tuple(
            Speedup(model=name, reference="teacher", ratio=1.5, low=1.4, high=1.6, **on) for name in names[1:]
        ),
        costs=tuple(Cost(model=n, engine="torch fp32", load_seconds=1, peak_memory_bytes=10**8) for n in names),
    )
    found = variants_of(report)
    assert [(v.name, v.latency_ms, v.speedup, v.memory_bytes) for v in found][:2] == [
        ("teacher", 9.0, 1.0, 10**8), ("student", 8.0, 1.5, 10**8)
    ]  # fmt: skip
    assert bool(frontiers_of(report)) == (count == 3)
    assert ("## Frontier: nli" in report_markdown(report)) == (count == 3)

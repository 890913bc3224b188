"""What a report on several systems says: sentences, tables, plots, and a page that needs nothing else."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from affinage.report.html import report_html
from affinage.report.plots import plots_of
from affinage.report.report import Comparison, Report, Score, Source, Speedup, TrainingRun
from affinage.report.sentences import facts_of, headline_speedup, verdict
from affinage.report.tables import report_markdown, score_table, structure_table
from tiny_runs import entry, provenance

HOSTILE = '<script src="https://x.example/a.js">|&"$\\frac{$'


def comparison(**changed: Any) -> Comparison:
    parts: dict[str, Any] = {
        "model": "student", "reference": "teacher", "task": "nli", "metric": "accuracy", "difference": -0.042,
        "low": -0.06, "high": -0.02, "p_value": 0.0004, "test": "paired bootstrap", "n": 1254, "plain": 0.949,
        "plain_low": 0.93, "plain_high": 0.97, "baseline": 0.34, "retention": 0.911, "retention_low": 0.88,
        "retention_high": 0.95, "informative": True,
    }  # fmt: skip
    return Comparison(**parts | changed)


def score(model: str, value: float, *, task: str = "nli", seeds: tuple[int, ...] = (0, 1, 2), **more: Any) -> Score:
    bounds = {"low": value - 0.02, "high": value + 0.02}
    return Score(
        model=model, task=task, metric="accuracy", value=value, n=1254, seeds=seeds, split="test", **bounds | more
    )


def a_report(*comparisons: Comparison, **changed: Any) -> Report:
    names = ("teacher", "student")
    curve = tuple((step, 9 - step / 100) for step in range(0, 500, 100))
    training = TrainingRun(steps=500, tokens=9, seconds=1, losses={"loss": 5.0}, curves={"loss": curve})
    parts: dict[str, Any] = {
        "command": "report",
        "models": tuple(entry(f"runs/{name}", layers=layers) for name, layers in zip(names, (12, 6), strict=True)),
        "scores": (
            *(score(name, value) for name, value in zip(names, (0.824, 0.782), strict=True)),
            score("frozen embeddings of teacher", 0.34),
        ),
        "speedups": tuple(
            Speedup(
                model="student", reference="teacher", engine="torch fp32", batch=batch, length=length, ratio=ratio,
                low=ratio - 0.02, high=ratio + 0.02,
            )
            for batch, length, ratio in ((1, 16, 1.5), (1, 128, 1.94), (16, None, 1.7))
        ),
        "comparisons": comparisons or (comparison(),),
        "sources": (
            Source(
                path="runs/teacher", command="pretrain", model="teacher", training=training, provenance=provenance("x")
            ),
        ),
        "provenance": provenance("report"),
    }  # fmt: skip
    return Report(**parts | changed)


def test_a_difference_is_said_with_its_interval() -> None:
    said = verdict(comparison())
    assert "student is 4.2 points below teacher (95 % interval of the difference −6.0 to −2.0)" in said
    assert "94.9 % of the plain score (93.0 to 97.0)" in said
    assert "91.1 % of what is above the baseline (88.0 to 95.0)" in said


def test_an_interval_that_holds_0_tells_nothing_apart() -> None:
    said = verdict(comparison(low=-0.06, high=0.001))
    assert "student and teacher are not told apart (n = 1,254)" in said
    assert "below" not in said
    table = score_table(a_report(comparison(low=-0.06, high=0.001)))
    (cell,) = [row[5] for row in table.rows if row[1] == "student"]
    assert cell == "−4.2 (−6.0 to +0.1): not told apart (n = 1,254)"


def test_of_a_task_that_is_not_informative_nothing_is_claimed() -> None:
    mute = comparison(informative=False, retention=None, retention_low=None, retention_high=None)
    assert verdict(mute) == (
        "nli (accuracy): not informative. teacher is not significantly above the baseline of 34.0 %, and nothing is "
        "claimed."
    )
    report = a_report(mute)
    (row,) = [row for row in score_table(report).rows if row[1] == "student"]
    assert row[5:] == ("", "", "not informative, baseline 34.0")
    page = report_html(report)
    assert "94.9" not in page
    assert "p &lt; 0.001" not in page
    assert not [plot for plot in plots_of(report) if plot.title.startswith("Kept")]


def test_without_a_baseline_only_the_plain_figure_is_given() -> None:
    plain = comparison(baseline=None, informative=False, retention=None, retention_low=None, retention_high=None)
    assert "above the baseline" not in verdict(plain)
    assert "94.9 % of the plain score" in verdict(plain)
    (row,) = [row for row in score_table(a_report(plain)).rows if row[1] == "student"]
    assert row[6:] == ("94.9 (93.0 to 97.0)", "no baseline given")


def test_tables() -> None:
    table = structure_table(a_report())
    assert table.rows[1] == ("student", "6", "384", "7,000,000", "24.0", "fp32", "1.94 (1.92 to 1.96)")
    assert structure_table(a_report(speedups=())).rows[1][-1] == "not measured"
    names = [row[1] for row in score_table(a_report()).rows]
    assert names == ["frozen embeddings of teacher (baseline)", "teacher", "student"]
    assert score_table(a_report()).rows[2] == (
        "nli: accuracy",
        "student",
        "78.2 (76.2 to 80.2)",
        "3 seeds",
        "1,254",
        "−4.2 (−6.0 to −2.0), p < 0.001 (paired bootstrap)",
        "94.9 (93.0 to 97.0)",
        "91.1 (88.0 to 95.0), baseline 34.0",
    )


def test_mb_of_different_precision_are_not_left_to_be_compared() -> None:
    report = a_report()
    assert not any("MB" in note for note in structure_table(report).notes)
    teacher, student = report.models
    half = teacher.model_copy(update={"size_bytes": 2 * teacher.parameters, "stored_as": "fp16"})
    report = a_report(models=(half, student))
    assert [row[4:6] for row in structure_table(report).rows] == [("26.0", "fp16"), ("24.0", "fp32")]
    # 13 million parameters and 7 million, 4 bytes each.
    said = (
        "MB stored are not to be compared: the precision differs or is unknown. In fp32: teacher 52.0, student 28.0 MB."
    )
    assert said in structure_table(report).notes
    assert said in report_markdown(report)
    assert said in report_html(report)
    assert any("student has 6 layers to the 12 of teacher, and 54 % of its parameters" in f for f in facts_of(report))
    unsaid = [model.model_copy(update={"stored_as": None}) for model in report.models]
    table = structure_table(a_report(models=unsaid))
    assert [row[5] for row in table.rows] == ["unknown", "unknown"]
    assert said in table.notes


def test_one_seed_says_so() -> None:
    table = score_table(a_report(scores=(score("teacher", 0.8, seeds=(0,)), score("student", 0.7, seeds=(0,)))))
    assert table.rows[0][3] == "1 seed"
    assert any("says nothing of another training run" in note for note in table.notes)
    assert not any("another training run" in note for note in score_table(a_report()).notes)


def test_the_speedup_that_stands_for_all() -> None:
    found = headline_speedup(a_report(), "student")
    assert found is not None
    assert (found.batch, found.length) == (1, 128)
    assert "1.94 (1.92 to 1.96) times as fast as teacher (torch fp32, batch 1, 128 tokens)" in facts_of(a_report())[1]
    rest = tuple(s for s in a_report().speedups if s.length != 128)
    assert headline_speedup(a_report(speedups=rest[::-1]), "student") == rest[0]


def test_markdown_is_what_the_report_gives_itself() -> None:
    text = report_markdown(a_report())
    assert text == a_report().to_markdown()
    assert text.startswith("# student beside teacher\n")
    assert "| student | 6 | 384 | 7,000,000 | 24.0 | fp32 | 1.94 (1.92 to 1.96) |" in text
    assert Report.from_json(a_report().to_json()) == a_report()


def test_every_plot_is_said_in_words() -> None:
    plots = {plot.title: plot for plot in plots_of(a_report())}
    assert list(plots) == [
        "nli: accuracy, %",
        "Kept, plain, against speed",
        "Kept above the baseline, against speed",
        "Losses of teacher (pretrain)",
    ]
    assert "student 78.2 % (76.2 to 80.2)" in plots["nli: accuracy, %"].text
    assert "94.9 % (93.0 to 97.0) at 1.94 times the speed" in plots["Kept, plain, against speed"].text
    assert "91.1 % (88.0 to 95.0)" in plots["Kept above the baseline, against speed"].text
    assert "loss 9 at step 0, 5 at step 400" in plots["Losses of teacher (pretrain)"].text
    assert not [plot for plot in plots_of(a_report(speedups=())) if "against speed" in plot.title]


class _Page(HTMLParser):
    """What a page would load, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.links.append(value or "")


def page_of(report: Report) -> tuple[str, _Page]:
    text = report_html(report)
    page = _Page()
    page.feed(text)
    return text, page


def test_the_page_needs_nothing_else() -> None:
    text, page = page_of(a_report())
    assert set(page.links) <= {f"#{name}" for name in page.ids}
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert page.tags.count("svg") == page.tags.count("figcaption") == 4
    assert not re.search(r"https?:|//|@import|@font-face", text)
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{name}" for name in page.ids}
    assert "default-src 'none'" in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


def test_every_colour_of_the_plots_is_the_pages_own() -> None:
    text = report_html(a_report())
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(href="|url\()#[^")]*', "", svg))
        assert "font-family" not in svg
    assert {*re.findall(r"var\((--[\w-]+)\)", text)} <= {*re.findall(r"(--[\w-]+):", text)}


def test_names_cannot_break_the_page() -> None:
    models = (entry("runs/teacher"), entry("runs/x").model_copy(update={"name": HOSTILE}))
    scores = (score("teacher", 0.8, task=HOSTILE), score(HOSTILE, 0.7, task=HOSTILE))
    report = a_report(comparison(model=HOSTILE, task=HOSTILE), models=models, scores=scores)
    text, page = page_of(report)
    assert "script" not in page.tags
    assert not any("x.example" in link for link in page.links)
    assert "&lt;script" in text
    rows = [line for line in report_markdown(report).splitlines() if line.startswith("| ")]
    assert len({line.replace(r"\|", "").count("|") for line in rows if "accuracy" in line}) == 1


@pytest.mark.parametrize(
    "changed", [{"comparisons": (), "scores": ()}, {"models": (), "scores": (), "comparisons": ()}]
)
def test_a_report_with_little_in_it_still_has_a_page(changed: dict[str, Any]) -> None:
    report = a_report(**{"speedups": (), **changed})
    assert report_html(report).rstrip().endswith("</html>")
    assert report_markdown(report).startswith("# ")

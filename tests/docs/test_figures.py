"""The figures of the READMEs are those of the committed reports."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from affinage.report.report import Report

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "readme_figures.py"
README = {"en": ROOT / "README.md", "fr": ROOT / "README.fr.md"}
TASKS = {
    "sentiment": ("accuracy",),
    "ner": ("entity_f1", "token_overlap_f1"),
    "nli": ("accuracy",),
    "qa": ("f1", "exact_match"),
}


def test_both_pages_are_generated_from_the_reports() -> None:
    check = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, timeout=120)
    assert check.returncode == 0, f"run python benchmarks/readme_figures.py\n{check.stdout}{check.stderr}"


@pytest.mark.parametrize("language", README)
def test_no_measured_figure_stands_outside_the_markers(language: str) -> None:
    script = runpy.run_path(str(SCRIPT))
    before, rest = README[language].read_text(encoding="utf-8").split(script["BEGIN"])
    _, after = rest.split(script["END"])
    after = re.sub(r"<!-- compression: generated .*?<!-- /compression -->", "", after, flags=re.S)  # tested on its own
    figures = re.findall(r"\d+[.,]\d+(?!\.\d)|\d+ ?[%×]", before + after)
    assert set(figures) <= {"3.11", "2.0", "95 %"}, "of Python, of the licence, of the intervals; others are generated"


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        (
            "en",
            (
                "| teacher | 12 | 384 | 17,153,920 | 34.3 | ",
                "| student | 3 | 384 | 11,830,528 | 23.7 | ",
                " | 1.93 (1.84 to 1.97) |",
                "Speed-up: torch fp32, 2 threads, batch 1, 128 tokens; 95 % interval over paired rounds.",
                "| sentiment (reviews), accuracy | 60.0 (59.0 to 61.0), frozen embeddings | 90.0 (89.0 to 91.0)"
                " | 81.0 (80.0 to 82.0) | 3 | 1,166 | 90.0 (89.1 to 91.2) | 101.9 | 70.0 (66.0 to 74.0) |",
                "| NLI (XNLI, parts of ours), accuracy | 60.0 (59.0 to 61.0), frozen embeddings | 90.0 (89.0 to 91.0)"
                " | 81.0 (80.0 to 82.0) | 3 | 1,166 |  | 94.9 | not informative |",
                "| question answering (PIAF), exact match | 60.0 (59.0 to 61.0), frozen embeddings"
                " | 90.0 (89.0 to 91.0) | 81.0 (80.0 to 82.0) | 3 | 1,166 | 90.0 (89.1 to 91.2) |"
                "  | 70.0 (66.0 to 74.0) |",
                "30,035,046 tokens",
                "98,272 in",
                "Made-up (2 cores)",
            ),
        ),
        (
            "fr",
            (
                "| modèle | couches | largeur | paramètres | Mo enregistrés | en | ",
                "| professeur | 12 | 384 | 17\u202f153\u202f920 | 34,3 | ",
                "| élève | 3 | 384 | 11\u202f830\u202f528 | 23,7 | ",
                " | 1,93 (1,84 à 1,97) |",
                "| sentiment (avis), exactitude | 60,0 (59,0 à 61,0), plongements figés | 90,0 (89,0 à 91,0)"
                " | 81,0 (80,0 à 82,0) | 3 | 1\u202f166 | 90,0 (89,1 à 91,2) | 101,9 | 70,0 (66,0 à 74,0) |",
                "| inférence (XNLI, notre découpage), exactitude | 60,0 (59,0 à 61,0), plongements figés"
                " | 90,0 (89,0 à 91,0) | 81,0 (80,0 à 82,0) | 3 | 1\u202f166 |  | 94,9 | non informatif |",
                "30\u202f035\u202f046 tokens",
                "Delestre et Amar",
            ),
        ),
    ],
)
def test_the_article_s_tables_for_our_models(language: str, lines: tuple[str, ...]) -> None:
    text = runpy.run_path(str(SCRIPT))["figures"](made_up(), language)
    for line in lines:
        assert line in text
    assert "token_overlap" not in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    published = [line.split(" | ")[-2].replace(",", ".") for line in tables[6:]]
    assert published == ["101.9", "100.2", "94.9", "78.7", ""], "of the article's table 2"


def test_a_task_without_figures_is_not_passed_over() -> None:
    report = made_up()
    without = report.model_copy(update={"scores": tuple(s for s in report.scores if s.task != "ner")})
    with pytest.raises(KeyError):
        runpy.run_path(str(SCRIPT))["figures"](without, "en")


def test_every_committed_report_says_how_it_was_made() -> None:
    speeds = ("training", "runtime")  # written by scripts of their own
    parts = ("-beside-", "-tuning")  # comparisons alone, and what a rate was chosen by
    found = (p for p in (ROOT / "benchmarks").glob("*/*.json") if p.parent.name not in speeds)
    reports = [p for p in found if not any(part in p.name for part in parts)]
    assert reports
    for path in reports:
        report = Report.from_json(path.read_text(encoding="utf-8"))
        assert report.provenance.command.startswith("affinage "), path
        assert report.provenance.hardware.cpu, path
        # Always answering the commonest label takes no training, and so no seed.
        assert all(score.n > 0 and (score.seeds or score.model == "majority") for score in report.scores), path


def made_up() -> Report:
    """A report as `affinage report` writes it, NLI not informative; no figure of it was measured."""
    teacher = {"name": "teacher", "path": "t", "parameters": 17_153_920, "layers": 12, "size_bytes": 34_320_224}
    student = {"name": "student", "path": "s", "parameters": 11_830_528, "layers": 3, "size_bytes": 23_661_056}
    on = {"engine": "torch fp32", "batch": 1, "length": 128}
    once = {"threads": 2, "p50_ms": 1, "p95_ms": 1, "tokens_per_second": 1, "runs": 1}
    provenance = {
        **dict.fromkeys(("torch", "transformers", "seed", "recipe_sha256")),
        **{"affinage": "0.1.0", "python": "3.11", "command": "affinage report", "date": "2026-01-01", "data": {}},
        **{"seconds": 1, "hardware": {"cpu": "Made-up", "cores": 2, "memory_gib": 24}},
    }
    trained = (("teacher", {"tokens": 30_035_046}), ("student", {"tokens": 98_272}), ("teacher", None))
    return Report.model_validate(
        {
            "command": "report",
            "models": [{**model, "hidden_size": 384} for model in (teacher, student)],
            "scores": [
                score(model, task, metric, value)
                for task, metrics in TASKS.items()
                for metric in metrics
                for model, value in (("teacher", 0.9), ("student", 0.81), ("frozen embeddings of teacher", 0.6))
            ],
            "latency": [{"model": model, **on, **once} for model in ("teacher", "student")],
            "speedups": [
                {"model": "student", "reference": "teacher", **on, "ratio": 1.93, "low": 1.84, "high": 1.97},
            ],
            "comparisons": [beside(task, metric) for task, metrics in TASKS.items() for metric in metrics],
            "sources": [
                {
                    **{"path": model, "command": "x", "model": model, "provenance": provenance},
                    "training": training and {**training, "steps": 1, "seconds": 1},
                }
                for model, training in trained
            ],
            "provenance": provenance,
        }
    )


def score(model: str, task: str, metric: str, value: float) -> dict[str, Any]:
    baseline = {} if model.startswith("frozen") else {"baseline": 0.6, "baseline_kind": "frozen embeddings"}
    of = {"model": model, "task": task, "metric": metric, "split": "test", "n": 1166, "seeds": (0, 1, 2)}
    return {**of, **baseline, "value": value, "low": value - 0.01, "high": value + 0.01}


def beside(task: str, metric: str) -> dict[str, Any]:
    informative = task != "nli"
    kept = {"retention": 0.7, "retention_low": 0.66, "retention_high": 0.74} if informative else {"retention": None}
    of = {"model": "student", "reference": "teacher", "task": task, "metric": metric, "n": 1166}
    difference = {"difference": -0.09, "low": -0.1, "high": -0.08, "p_value": 0.0004, "test": "paired bootstrap"}
    plain = {"plain": 0.9, "plain_low": 0.891, "plain_high": 0.912, "baseline": 0.6, "informative": informative}
    return {**of, **difference, **plain, **kept}

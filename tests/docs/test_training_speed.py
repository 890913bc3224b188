"""The tables of the page on training speed are those of the committed reports."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "training_page.py"


def test_the_page_is_made_from_the_reports() -> None:
    check = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, timeout=60)
    assert check.returncode == 0, f"run python benchmarks/training_page.py\n{check.stdout}{check.stderr}"


def test_a_ratio_is_shown_with_its_range_and_aim() -> None:
    cell = {
        "objective": "mlm",
        "way": "affinage",
        "tokens_per_second": 4321.0,
        "ratio": 6.54,
        "ratio_low": 6.0,
        "ratio_high": 7.04,
        "peak_memory_bytes": 3 * 2**29,
        "aim": 5,
    }
    made = {"hardware": {"cpu": "Made-up", "cores": 2}, "command": "python x", "date": "2026-11-29T10:00:00"}
    shown = runpy.run_path(str(SCRIPT))["speed"]({"cells": [cell], "rounds": 3, "seconds": 12, "provenance": made})
    assert "| affinage | 4,321 | 6.5 (6.0 to 7.0) | 5 | 1.50 |" in shown
    assert "Made-up, 2 cores" in shown and "2026-11-29" in shown


def test_the_report_says_how_it_was_made() -> None:
    report = json.loads((ROOT / "benchmarks" / "training" / "report.json").read_text(encoding="utf-8"))
    assert report["rounds"] >= 3 and report["provenance"]["command"] == "python benchmarks/training.py"

"""The figures of the README are those of the committed reports."""

import subprocess
import sys
from pathlib import Path

from affinage.report.report import Report

ROOT = Path(__file__).parents[2]


def test_the_readme_is_generated_from_the_reports() -> None:
    script = ROOT / "benchmarks" / "readme_figures.py"
    check = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=120)
    assert check.returncode == 0, f"run python benchmarks/readme_figures.py\n{check.stderr}"


def test_every_committed_report_says_how_it_was_made() -> None:
    reports = list((ROOT / "benchmarks").glob("*/*.json"))
    assert reports
    for path in reports:
        report = Report.from_json(path.read_text(encoding="utf-8"))
        assert report.provenance.command.startswith("affinage "), path
        assert report.provenance.hardware.cpu, path
        # Always answering the commonest label takes no training, and so no seed.
        assert all(score.n > 0 and (score.seeds or score.model == "majority") for score in report.scores), path

"""docs/runtime-speed.md is what the committed reports say."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "runtime" / "page.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="benchmarks are not part of the source distribution")
def test_the_page_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], timeout=60, check=False)
    assert done.returncode == 0, "run python benchmarks/runtime/page.py"

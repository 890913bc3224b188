"""`pip install affinage[runtime]` in an environment of its own answers, and brings neither torch nor transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import affinage
from tiny_tasks import tuned_teacher

ROOT = Path(__file__).parents[2]
LARGEST = 250e6
"""bytes that the installed packages may take"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_runtime_is_small_and_answers_alone(tmp_path: Path) -> None:
    affinage.export(tuned_teacher(tmp_path, "sentiment", affinage_task="sentiment"), out=tmp_path / "out")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", ROOT / "constraints.txt", f"{ROOT}[runtime]"], check=True, cwd=tmp_path)
    code = (
        "import json, sys, importlib.metadata as m, affinage\n"
        f"answer = affinage.load({str(tmp_path / 'out')!r}).predict('Une cave sombre.')\n"
        "files = [f for d in m.distributions() for f in d.files or () if d.name not in ('pip', 'setuptools')]\n"
        "size = sum(f.locate().stat().st_size for f in files if f.locate().is_file())\n"
        "print(json.dumps([answer, sorted(d.name.lower() for d in m.distributions()), size, affinage.__file__]))"
    )
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    answer, names, size, file = json.loads(done.stdout)
    assert answer == affinage.load(tmp_path / "out").predict("Une cave sombre.")
    assert str(tmp_path) in file
    assert "onnxruntime" in names and not {"torch", "transformers", "onnx", "datasets"} & set(names)
    assert size < LARGEST, f"{size / 1e6:.0f} MB: {names}"

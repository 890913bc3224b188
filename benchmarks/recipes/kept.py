"""What is kept of a run so that a report can be made without it: its figures, its recipe, its examples' scores.

No weights, no texts: some kilobytes a run, committed under `runs/`. A later session goes on from them.
"""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

from affinage.evaluation.example_scores import NAME

HERE = Path(__file__).parent
RUNS = HERE / "runs"
WORD = f"{NAME}.gz"


def is_kept(out: str, runs: Path = RUNS) -> bool:
    """Whether the scores of this run are."""
    return (runs / out / WORD).is_file()


def keep(folder: Path, out: str, runs: Path = RUNS) -> None:
    """Keep what reports read of a finished run; what is kept already stays, so that scores are of one training."""
    place = runs / out
    if place.exists() or not (folder / "report.json").is_file():
        return
    aside = place.with_name(f"{place.name}.making")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if report["training"]:
        report["training"]["curves"] = {}
    (aside / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if (folder / "recipe.yaml").is_file():
        shutil.copy(folder / "recipe.yaml", aside)
    if (folder / NAME).is_file():
        packed = gzip.compress((folder / NAME).read_bytes(), mtime=0)  # the same bytes each time
        (aside / WORD).write_bytes(packed)
    aside.rename(place)


def report(language: str, work: Path, runs: Path = RUNS, to: Path = HERE) -> bool:
    """`affinage report` over all that is kept of a language, written to `to`; False where nothing is scored."""
    folder = work / f"report-{language}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(runs / language, folder / "runs", dirs_exist_ok=True)
    packed = list(folder.glob(f"runs/*/{WORD}"))
    for file in packed:
        file.with_name(NAME).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    if not packed:
        return False
    program = Path(sys.executable).with_name("affinage")
    command = [program, "report", "runs", "--reference", "teacher", "--out", "report"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for name in ("report.json", "report.md"):
        shutil.copy(folder / "report" / name, to / f"{language}-{name}")
    return True

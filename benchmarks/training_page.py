"""Writes the tables of docs/training-speed.md from the reports in benchmarks/training; --check: are they stale."""

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parent.parent
REPORTS = ROOT / "benchmarks" / "training"
PAGE = ROOT / "docs" / "training-speed.md"
BEGIN = "<!-- made by benchmarks/training_page.py from the reports in benchmarks/training -->\n"
END = "<!-- end of what is made -->\n"
TITLES = {"distilcamembert": "DistilCamemBERT's objective", "tinybert": "TinyBERT's", "mlm": "MLM pre-training"}
LOSSES = ("soft_kl", "cosine_distance", "mlm")


def speed(report: dict[str, Any]) -> str:
    """One table an objective."""
    parts = []
    for objective, title in TITLES.items():
        rows = [cell for cell in report["cells"] if cell["objective"] == objective]
        lines = [
            f"| {title} | real tokens/s | times the plain script | aim | peak memory, GiB |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for cell in rows:
            ratio = f"{cell['ratio']:.1f} ({cell['ratio_low']:.1f} to {cell['ratio_high']:.1f})"
            aim = "" if cell["aim"] is None else f"{cell['aim']}"
            memory = f"{cell['peak_memory_bytes'] / 2**30:.2f}"
            lines.append(f"| {cell['way']} | {cell['tokens_per_second']:,.0f} | {ratio} | {aim} | {memory} |")
        parts.append("\n".join(lines))
    made = report["provenance"]
    parts.append(
        f"Medians of {report['rounds']} interleaved rounds of {report['seconds']:.0f} s, every cell a fresh process, "
        f"with the range of the ratio over the rounds; {made['hardware']['cpu']}, {made['hardware']['cores']} cores, "
        f"bfloat16 {'in hardware' if report.get('bf16') else 'not used'}. By `{made['command']}`, {made['date'][:10]}."
    )
    return "\n\n".join(parts)


def quality(report: dict[str, Any]) -> str:
    """What the students of each way came to, at equal tokens."""
    ways = list(dict.fromkeys(run["way"] for run in report["runs"]))
    lines = [
        "| way | seeds | " + " | ".join(f"held-out `{name}`" for name in LOSSES) + " |",
        "| --- | ---: |" + " ---: |" * len(LOSSES),
    ]
    for way in ways:
        runs = [run for run in report["runs"] if run["way"] == way]
        cells = [
            f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
            for values in ([run[name] for run in runs] for name in LOSSES)
        ]
        lines.append(f"| {way} | {len(runs)} | " + " | ".join(cells) + " |")
    made, tokens = report["provenance"], report["runs"][0]["tokens"]
    lines += [
        "",
        f"Means over seeds with their range; about {tokens:,} tokens each from the shipped teacher, measured on the "
        f"same {report['held_out_lines']} lines that none of them saw, KL at every token. {made['hardware']['cpu']}; "
        f"by `{made['command']}`, {made['date'][:10]}.",
    ]
    return "\n".join(lines)


def page() -> str:
    """The page with its tables made anew."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    read = {name: json.loads((REPORTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("report", "quality")}
    made = f"{speed(read['report'])}\n\n{quality(read['quality'])}"
    return f"{before}{BEGIN}\n{made}\n\n{END}{after}"


def main() -> int:
    fresh = page()
    stale = fresh != PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        print(*(["docs/training-speed.md is stale"] if stale else []))
        return int(stale)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes the tables of docs/runtime-speed.md from the reports beside this file; --check: are they stale."""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "runtime-speed.md"
BEGIN = "<!-- made by benchmarks/runtime/page.py from the reports beside it -->\n"
END = "<!-- end of what is made -->\n"
SHOWN = ("onnx int8", "openvino int8", "openvino bf16", "onnx fp32", "torch bf16", "torch fp32", "pipeline")
SHAPES = {
    "camembert-12x768": "12 layers, 768",
    "student-6x768": "6 layers, 768",
    "minilm-6x384": "6 layers, 384",
    "tinybert-4x312": "4 layers, 312",
}
MOST_P95 = {"student-6x768": 13.0, "tinybert-4x312": 2.7}
"""milliseconds that 95 % of single requests of mixed lengths are to take at most"""
MOST_START = 0.5
"""seconds from the import to a loaded model that are aimed at"""


def tables(report: dict[str, Any], served: dict[str, Any] | None) -> str:
    """Everything between the markers."""
    rows = {(row["shape"], row["cell"], row["variant"]): row for row in report["timed"]}
    parts = [ratios(report, rows), single(rows), costs(report)]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    parts.append(
        f"Random weights (speed only), text to answer, {report['threads']} threads on {report['cpu']['name']} with "
        f"{', '.join(report['cpu']['has']) or 'none of the flags looked for'}; {versions}. Milliseconds of every "
        "length, and bare onnxruntime beside: [report](../benchmarks/runtime/report.md). Each cell is of "
        f"{rounds(rows)}. By `{report['command']}`, {', '.join(report['dates'])}."
    )
    return "\n\n".join([*parts, *([] if served is None else [serving(served)])])


def rounds(rows: dict[Any, Any]) -> str:
    """How many texts, or streams, a variant was timed on."""
    one = [row["runs"] for (_, cell, _), row in rows.items() if cell == "128"]
    stream = [row["runs"] for (_, cell, _), row in rows.items() if cell == "mixed"]
    return f"{min(one)} to {max(one)} rounds (128 tokens), {min(stream)} to {max(stream)} (streams)"


def ratios(report: dict[str, Any], rows: dict[Any, Any]) -> str:
    """Times as fast as the pipeline on the largest shape, beside the aims."""
    aims = {(aim["shape"], aim["cell"]): aim["ratio"] for aim in report["aims"]}
    lines = ["| | aim | " + " | ".join(f"`{one}`" for one in SHOWN) + " |", "| --- |" + " ---: |" * (len(SHOWN) + 1)]
    for cell, title in (("128", "one text of 128 tokens"), ("mixed", "mixed lengths, a stream")):
        for shape, name in SHAPES.items():
            cells = [shown(rows.get((shape, cell, variant))) for variant in SHOWN]
            aim = f"≥ {aims[shape, cell]:g}" if (shape, cell) in aims else ""
            lines.append(f"| {name}: {title} | {aim} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['ratio']:.1f} ({row['low']:.1f} to {row['high']:.1f})"


def single(rows: dict[Any, Any]) -> str:
    """Latencies of single requests of mixed lengths."""
    lines = ["| one request of mixed lengths, ms: p50 / p95 / p99 | p95 aimed at | `onnx int8` | `openvino int8` |",
             "| --- | ---: | ---: | ---: |"]  # fmt: skip
    for shape, name in SHAPES.items():
        cells = []
        for variant in ("onnx int8", "openvino int8"):
            row = rows.get((shape, "single", variant))
            cells.append("" if row is None else " / ".join(f"{row[f'p{q}_ms']:.2f}" for q in (50, 95, 99)))
        aim = f"≤ {MOST_P95[shape]:g}" if shape in MOST_P95 else ""
        lines.append(f"| {name} | {aim} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(report: dict[str, Any]) -> str:
    """What a fresh process needs."""
    lines = [
        "| in a fresh process | loaded, s | first answer, s | peak memory, MB | file, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for c in report["costs"]:
        lines.append(
            f"| {SHAPES[c['shape']]}: `{c['variant']}` | {c['load_seconds']:.2f} | {c['first_answer_seconds']:.2f} | "
            f"{c['peak_memory_bytes'] / 1e6:,.0f} | {c['file_bytes'] / 1e6:,.1f} |"
        )
    return "\n".join([*lines, "", f"Aimed at: loaded within {MOST_START:g} s, the import included."])


def serving(found: dict[str, Any]) -> str:
    """What clients of a server saw."""
    share, memory = found["share_of_offline"], found["server_megabytes"]
    low, high = min(share["rounds"]), max(share["rounds"])
    return (
        f"**Served**: `{found['model']}`, {found['clients']} clients for {found['seconds']:.0f} s on {found['cores']} "
        f"cores, which the clients used too: {found['requests']:,} requests, {found['errors']} errors; p50 "
        f"{found['p50_ms']:.0f}, p95 {found['p95_ms']:.0f}, p99 {found['p99_ms']:.0f} ms; {share['median']:.0%} of the "
        f"offline stream's texts a second (rounds: {low:.0%} to {high:.0%}; aim 85 %); the server took "
        f"{memory['at_start']:.0f} MB at its start, {memory['peak']:.0f} at most (aim: below 300). By "
        f"`python benchmarks/serving.py WORK/{found['model']} {found['seconds']:.0f} {found['clients']} "
        f"{found['threads']}`."
    )


def page() -> str:
    """The page with its tables made anew; a ValueError where the markers are not there once each."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    report = json.loads((HERE / "report.json").read_text(encoding="utf-8"))
    file = HERE / "serving.json"
    served = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return f"{before}{BEGIN}\n{tables(report, served)}\n\n{END}{after}"


def main() -> int:
    fresh = page()
    if "--check" in sys.argv:
        return int(fresh != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

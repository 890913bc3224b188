"""The runtime beside transformers' pipeline, on models of four shapes: run.py prepare | measure | fresh | report.

    run.py prepare WORK              random weights of the right shapes, saved, and exported as float32 and int8 graphs
    run.py measure WORK SHAPE lengths|single|mixed      one interleaved run, text to answer; under a minute
    run.py fresh WORK SHAPE          load time, cold start and peak memory, in new processes
    run.py report WORK OUT           report.json and report.md, aims beside ratios

Speed only: random weights answer nothing. Every run has the pipeline on the 12-layer model in float32 in it, which the
ratios are to; who begins a round rotates. Slow variants (pipelines, float32) read every 16th text of the mixed list,
sorted by length, at the same mean; their speed is by their own tokens. Who has its turn
computes a text twice before it is timed at it: a small model whose weights the 12-layer one has pushed out of the
caches takes twice as long, and nobody serves it so. Give the machine nothing else to do.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {  # layers, width, heads, feed-forward
    "camembert-12x768": (12, 768, 12, 3072),
    "student-6x768": (6, 768, 12, 3072),
    "minilm-6x384": (6, 384, 12, 1536),
    "tinybert-4x312": (4, 312, 12, 1200),
}
REFERENCE = "camembert-12x768"
LENGTHS = (16, 64, 128, 384)
SAMPLE = 16
VARIANTS = (
    *("pipeline", "torch fp32", "torch bf16", "onnx fp32", "onnx int8", "bare onnx int8"),
    *("openvino bf16", "openvino int8"),
)
SLOW = ("pipeline", "torch fp32", "torch bf16", "onnx fp32")
AIMS = {
    ("student-6x768", "128"): 9.5,
    ("minilm-6x384", "128"): 27,
    ("tinybert-4x312", "128"): 50,
    ("student-6x768", "mixed"): 13,
    ("minilm-6x384", "mixed"): 45,
    ("tinybert-4x312", "mixed"): 90,
}
Run = Callable[[Sequence[str]], object]


def prepare(work: Path) -> None:
    import torch
    from transformers import AutoTokenizer, CamembertConfig, CamembertForSequenceClassification

    import affinage
    from affinage.models.checkpoint import load_task_model
    from affinage.models.shipped import located
    from affinage.runtime.kind import facts_of
    from affinage.runtime.onnx.build import onnx_graph
    from affinage.runtime.onnx.config import OnnxConfig
    from affinage.runtime.onnx.folder import write_graph, write_tokenizer
    from affinage.runtime.onnx.linear import Int8

    tokenizer = AutoTokenizer.from_pretrained(located("shipped:student"))
    for shape, (layers, width, heads, inner) in SHAPES.items():
        torch.manual_seed(0)
        config = CamembertConfig(
            vocab_size=32005,
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=inner,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_token_id,
            id2label={0: "negative", 1: "positive"},
        )
        tokenizer.model_max_length = 512
        folder = work / shape
        CamembertForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = load_task_model(folder, "sequence")
        facts = facts_of(model, tokenizer, "sequence")
        for name, int8 in (("fp32", None), ("int8", Int8())):  # as `affinage export`, without its check of answers
            out = work / f"{shape}-{name}"
            out.mkdir(exist_ok=True)
            write_graph(onnx_graph(model, int8=int8), out)
            write_tokenizer(tokenizer, out)
            kind = "dynamic" if int8 else "none"
            config = OnnxConfig(**facts.model_dump(), affinage="", architecture="camembert", int8=kind)
            (out / "config.json").write_text(config.to_json())
        out = work / f"{shape}-openvino-int8"
        affinage.export(folder, out=out, form="openvino", int8="static", least_agreement=0, overwrite=True)
        print("made", shape)


def texts_of(work: Path, lengths: Sequence[int]) -> list[str]:
    """Real French text, cut so that the tokenizer makes exactly so many tokens of it, special ones included."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(work / f"{REFERENCE}-int8" / "tokenizer.json"))
    folder = resources.files("affinage.assets") / "data" / "sentiment" / "test.jsonl"
    rows = [json.loads(line) for line in folder.read_text(encoding="utf-8").splitlines()]
    words = " ".join(str(row["text"]) for row in rows).split()
    random, found = np.random.default_rng(0), []
    for length in lengths:
        for start in random.integers(0, max(1, len(words) - 2 * length), 200).tolist():
            ids = tokenizer.encode(" ".join(words[start : start + 2 * length]))
            text = " ".join(words[start : start + 2 * length])[: ids.offsets[length - 2][1]]
            if len(tokenizer.encode(text).ids) == length:
                found.append(text)
                break
        else:
            raise SystemExit(f"no text of {length} tokens")
    return found


def variants(work: Path, shape: str, threads: int) -> dict[str, Run]:
    """Name -> texts in, answers out. A single text is asked for as one."""
    import transformers

    import affinage

    made: dict[str, Run] = {}
    if shape != REFERENCE:
        made[f"{REFERENCE} pipeline"] = _one_by_one(_pipeline(work / REFERENCE, threads))
    made["pipeline"] = _one_by_one(_pipeline(work / shape, threads))
    transformers.logging.set_verbosity_error()
    for name, folder, options in (
        ("torch fp32", work / shape, {}),
        ("torch bf16", work / shape, {"dtype": "bfloat16"}),
        ("onnx fp32", work / f"{shape}-fp32", {}),
        ("onnx int8", work / f"{shape}-int8", {}),
        ("openvino bf16", work / f"{shape}-fp32", {"engine": "openvino", "dtype": "bfloat16"}),
        ("openvino int8", work / f"{shape}-openvino-int8", {"dtype": "bfloat16"}),  # of what is not in integers
    ):
        made[name] = affinage.load(folder, threads=threads, **options).predict
    made["bare onnx int8"] = _bare(work / f"{shape}-int8", threads)
    return made


def _pipeline(folder: Path, threads: int) -> Any:
    import torch
    import transformers

    torch.set_num_threads(threads)
    return transformers.pipeline("text-classification", model=str(folder))


def _one_by_one(pipeline: Any) -> Run:
    return lambda texts: [pipeline(text, truncation=True) for text in texts]


def _bare(folder: Path, threads: int) -> Run:
    """tokenizers and onnxruntime with nothing between them, in batches by length of as many tokens as ours."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # a fair neighbour in one process
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def run(texts: Sequence[str]) -> object:
        rows = sorted((row.ids for row in tokenizer.encode_batch_fast(list(texts))), key=len, reverse=True)
        outputs, start = [], 0
        while start < len(rows):
            width = len(rows[start])
            batch = rows[start : start + min(64, max(1, 1024 // width))]
            ids = np.full((len(batch), width), 1, np.int64)
            mask = np.zeros((len(batch), width), np.int64)
            for i, row in enumerate(batch):
                ids[i, : len(row)], mask[i, : len(row)] = row, 1
            outputs.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
            start += len(batch)
        return outputs

    return run


def measure(work: Path, shape: str, what: str, threads: int, seconds: float) -> None:
    from affinage.runtime.benchmark import interleave
    from affinage.runtime.workload import mixed_lengths

    runs = variants(work, shape, threads)
    names = list(runs)
    slow = [name.rpartition(" ")[2] == "pipeline" or name in SLOW for name in names]
    found: list[dict[str, Any]] = []

    def one(cell: str, texts: list[list[list[str]]], lengths: list[int], budget: float, before: int = 2) -> None:
        """texts[model][step]: what it is given; lengths[model]: tokens of all its steps."""
        timing = interleave(
            lambda model, step: runs[names[model]](texts[model][step]),
            models=len(names),
            steps=len(texts[0]),
            warmup=0 if before == 0 else 1,
            repeats=60,
            seconds=budget,
            before=before,
        )
        for i, name in enumerate(names):
            ratio, low, high = (r * lengths[i] / lengths[0] for r in timing.ratio(i))
            row = {
                "shape": shape, "cell": cell, "variant": name, "ratio": ratio, "low": low, "high": high,
                "tokens_per_second": lengths[i] / timing.median_round(i), "runs": timing.runs,
                **{f"p{q}_ms": timing.quantile_ms(i, q / 100) for q in (50, 95, 99)},
            }  # fmt: skip
            found.append(row)
            print(f"{cell:8} {name:26} {row['p50_ms']:9.2f} ms {row['tokens_per_second']:10,.0f}/s {ratio:7.2f}")

    if what == "lengths":
        for length, text in zip(LENGTHS, texts_of(work, LENGTHS), strict=True):
            one(str(length), [[[text]]] * len(names), [length] * len(names), seconds * (2 if length > 128 else 1))
    else:
        lengths = sorted(mixed_lengths())
        every = texts_of(work, lengths)
        few, few_lengths = every[SAMPLE // 2 :: SAMPLE], lengths[SAMPLE // 2 :: SAMPLE]
        order = np.random.default_rng(1).permutation(len(few)).tolist()
        if what == "single":
            single = [[few[i]] for i in order]  # one request a step
            one(
                "single",
                [single] * len(names),
                [sum(few_lengths[i] for i in order)] * len(names),
                seconds,
                before=1,
            )
        streams = [[few if is_slow else every] for is_slow in slow]
        tokens = [sum(few_lengths if is_slow else lengths) for is_slow in slow]
        if what == "mixed":
            one("mixed", streams, tokens, seconds, before=0)
    path = work / f"{shape}-{what}.json"
    path.write_text(json.dumps(found, indent=1))


_FRESH = """
import sys, time
began = time.perf_counter()
import affinage
model = affinage.load(sys.argv[1], threads=int(sys.argv[2]))
loaded = time.perf_counter()
model.predict("Une cave sombre, un fromage sublime.")
first = time.perf_counter()
model.predict([line for line in open(sys.argv[3], encoding="utf-8")])
from affinage.runtime.memory import peak_memory_bytes
print(loaded - began, first - began, peak_memory_bytes())
"""


def fresh(work: Path, shape: str, threads: int) -> None:
    from affinage.runtime.workload import mixed_lengths

    texts = work / "mixed.txt"
    texts.write_text("\n".join(texts_of(work, sorted(mixed_lengths())[::4])), encoding="utf-8")
    found = []
    for name, folder in (
        ("torch fp32", work / shape),
        ("onnx fp32", work / f"{shape}-fp32"),
        ("onnx int8", work / f"{shape}-int8"),
        ("openvino int8", work / f"{shape}-openvino-int8"),
    ):
        command = [sys.executable, "-c", _FRESH, str(folder), str(threads), str(texts)]
        tries = []
        for _ in range(1 if name == "torch fp32" else 3):
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            load, first, peak = map(float, done.stdout.split())
            tries.append((load, first, time.perf_counter() - began, peak))
        load, first, _, peak = sorted(tries)[len(tries) // 2]
        weights = [p for p in folder.iterdir() if p.suffix == ".safetensors" or p.stem.startswith("model")]
        found.append(
            {
                "shape": shape,
                "variant": name,
                "load_seconds": load,
                "first_answer_seconds": first,
                "peak_memory_bytes": peak,
                "file_bytes": sum(p.stat().st_size for p in weights),
            }
        )
        print(found[-1])
    (work / f"{shape}-fresh.json").write_text(json.dumps(found, indent=1))


def report(work: Path, out: Path, threads: int, seconds: float) -> None:
    def read(suffix: str) -> list[dict[str, Any]]:
        files = [work / f"{shape}-{suffix}.json" for shape in SHAPES]
        return [row for file in files if file.exists() for row in json.loads(file.read_text())]

    timed, costs = read("lengths") + read("single") + read("mixed"), read("fresh")
    flags = _cpu()
    measured = [work / f"{shape}-{what}.json" for shape in SHAPES for what in ("lengths", "single", "mixed", "fresh")]
    days = {time.strftime("%Y-%m-%d", time.localtime(f.stat().st_mtime)) for f in measured if f.exists()}
    made = {
        "command": f"SECONDS_A_CELL={seconds:g} python benchmarks/runtime/run.py measure|fresh WORK SHAPE …",
        "dates": sorted(days),
        "threads": threads,
        "cpu": flags,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "onnxruntime", "openvino", "tokenizers")},
        },
        "aims": [{"shape": shape, "cell": cell, "ratio": aim} for (shape, cell), aim in AIMS.items()],
        "timed": timed,
        "costs": costs,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(made, indent=1) + "\n")
    (out / "report.md").write_text(_markdown(made))


def _cpu() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "").split()
    name = next((line.partition(": ")[2] for line in info.splitlines() if line.startswith("model name")), "")
    wanted = ("avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return {"name": name, "cores": len(os.sched_getaffinity(0)), "has": [flag for flag in wanted if flag in flags]}


def _markdown(made: dict[str, Any]) -> str:
    timed = made["timed"]

    def cell(shape: str, what: str, variant: str) -> dict[str, Any] | None:
        rows = (r for r in timed if (r["shape"], r["cell"], r["variant"]) == (shape, what, variant))
        return next(rows, None)

    lines = [
        "# The runtime beside transformers' pipeline",
        "",
        f"{made['threads']} threads, CPU with {', '.join(made['cpu']['has']) or 'none of the flags looked for'}; "
        + ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        + ". Random weights: speed only. Made by `benchmarks/runtime/run.py`, text to answer.",
        "",
        "## Aims",
        "",
        f"Times as fast as the float32 pipeline (batch 1) on {REFERENCE} in the same run; 95 % interval of the median.",
        "",
        "| shape | cell | aim | onnx int8 | openvino int8 | openvino bf16 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (shape, what), aim in AIMS.items():
        shown = []
        for variant in ("onnx int8", "openvino int8", "openvino bf16"):
            row = cell(shape, what, variant)
            shown.append("not run" if row is None else f"{row['ratio']:.1f} ({row['low']:.1f} to {row['high']:.1f})")
        lines.append(f"| {shape} | {what} | ≥ {aim} | {' | '.join(shown)} |")
    for what in (*map(str, LENGTHS), "single"):
        title = "Single requests of the mixed list" if what == "single" else f"One text of {what} tokens"
        lines += [
            "",
            f"## {title}: p50 / p95 / p99, ms",
            "",
            f"| variant | {' | '.join(SHAPES)} |",
            "|---|" + "---:|" * 4,
        ]
        for variant in VARIANTS:
            rows = [cell(shape, what, variant) for shape in SHAPES]
            shown = ["–" if r is None else f"{r['p50_ms']:.2f} / {r['p95_ms']:.2f} / {r['p99_ms']:.2f}" for r in rows]
            lines.append(f"| {variant} | {' | '.join(shown)} |")
    lines += [
        "",
        "## Stream of mixed lengths, real tokens/s",
        "",
        f"| variant | {' | '.join(SHAPES)} |",
        "|---|" + "---:|" * 4,
    ]
    for variant in VARIANTS:
        rows = [cell(shape, "mixed", variant) for shape in SHAPES]
        lines.append(
            f"| {variant} | {' | '.join('–' if r is None else format(r['tokens_per_second'], ',.0f') for r in rows)} |"
        )
    lines += [
        "", "## In a fresh process", "",
        "| shape | variant | load s | first answer s | peak memory MB | file MB |", "|---|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for c in made["costs"]:
        lines.append(
            f"| {c['shape']} | {c['variant']} | {c['load_seconds']:.2f} | {c['first_answer_seconds']:.2f} | "
            f"{c['peak_memory_bytes'] / 1e6:,.0f} | {c['file_bytes'] / 1e6:,.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    threads, seconds = int(os.environ.get("THREADS", "2")), float(os.environ.get("SECONDS_A_CELL", "8"))
    verb, work, *rest = arguments
    if verb == "prepare":
        prepare(Path(work))
    elif verb == "measure":
        measure(Path(work), rest[0], rest[1], threads, seconds)
    elif verb == "fresh":
        fresh(Path(work), rest[0], threads)
    else:
        report(Path(work), Path(rest[0]), threads, seconds)


if __name__ == "__main__":
    main(sys.argv[1:])

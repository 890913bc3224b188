"""Puts a trained model where it ships: ship.py RUN NAME --notes FILE --losses FILE …

Writes models/src/affinage_models/NAME: fp16 weights, tokenizer, report.json and card. RUN is what train.py or
`affinage distil` wrote.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from affinage.evaluation.footprint import model_entry
from affinage.models.checkpoint import load_masked_lm, load_tokenizer
from affinage.report.card import model_card
from affinage.report.provenance import provenance
from affinage.report.report import Report, TrainingRun

MODELS = Path(__file__).parents[2] / "models" / "src" / "affinage_models"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def of_train_py(run: Path) -> tuple[TrainingRun, str]:
    """The figures in the log of train.py, and how the model was made."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = log[-1]
    every = max(1, len(log) // 150)
    curves = {
        "loss": tuple((entry["update"], entry["loss"]) for entry in log[::every]),
        "held_out": tuple((entry["update"], entry["held_out"]) for entry in log if "held_out" in entry),
    }
    training = TrainingRun(
        steps=last["update"],
        tokens=last["tokens"],
        seconds=last["seconds"],
        losses={"mlm": last["loss"]},
        curves=curves,
    )
    return training, "benchmarks/teacher/train.py (see benchmarks/teacher/README.md)"


def of_affinage(run: Path) -> tuple[TrainingRun, str]:
    """The figures in the report of an affinage run, and its command."""
    report = Report.from_json((run / "report.json").read_text(encoding="utf-8"))
    assert report.training is not None
    return report.training, report.provenance.command


def with_tokens_of(first: Path, training: TrainingRun) -> TrainingRun:
    """Steps, tokens and seconds of the run `first` counted in."""
    before = Report.from_json(first.read_text(encoding="utf-8")).training
    assert before is not None
    sums = {name: getattr(before, name) + getattr(training, name) for name in ("steps", "tokens", "seconds")}
    return training.model_copy(update=sums)


def main(
    run: Path,
    name: str,
    *,
    base: str,
    notes: Path,
    scores: Path | None,
    losses: Path,
    goes_on: Path | None,
    provisional: bool,
) -> None:
    trained = run / "model" if (run / "model").is_dir() else run
    training, command = of_train_py(run) if (run / "log.jsonl").is_file() else of_affinage(run)
    if goes_on is not None:
        training = with_tokens_of(goes_on, training)
    model, _ = load_masked_lm(trained)
    tokenizer = load_tokenizer(trained)
    measured = json.loads(losses.read_text(encoding="utf-8"))["running_text"]
    training = training.model_copy(update={"held_out": {key: measured[key] for key in ("mlm", "pseudo_perplexity")}})
    out = MODELS / name
    shutil.rmtree(out, ignore_errors=True)
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    entry = model_entry(model, name=name, path=f"shipped:{name}", base=base, folder=out)
    scored = Report.from_json(scores.read_text(encoding="utf-8")).scores if scores else ()
    report = Report(
        command="pretrain" if base == MINILM else "distil",
        models=(entry,),
        scores=tuple(score for score in scored if score.model == name),
        training=training,
        provenance=provenance(command=command, seed=0, recipe_sha256=None, data={}, seconds=training.seconds),
    )
    # Scores are of models tuned from this one: on its card, but not what `affinage report` should take for its own.
    (out / "report.json").write_text(report.model_copy(update={"scores": ()}).to_json(), encoding="utf-8")
    front = {"language": "fr", "license": "apache-2.0", "base_model": base}
    tags = ["affinage", *(["provisional"] if provisional else [])]
    card = model_card(
        report.model_copy(
            update={"models": (entry.model_copy(update={"path": name}),)}
        ),  # loaded from a copy of itself
        base=None,
        architecture=type(model).__name__,
        recipe=name,
        made=f"Made by `{command}`, from `{base}`." + (" **Provisional.**" if provisional else ""),
        front={**front, "tags": tags},
        notes=notes.read_text(encoding="utf-8"),
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    for path in out.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=["teacher", "student"])
    parser.add_argument("--base", default=MINILM)
    parser.add_argument("--notes", type=Path, required=True, help="Markdown for the card: corpus, vocabulary, limits")
    parser.add_argument("--losses", type=Path, required=True, help="what held_out.py wrote of it")
    parser.add_argument("--scores", type=Path, help="a report of `affinage report` whose scores go into the card")
    parser.add_argument("--goes-on", type=Path, help="report.json of the run whose model this one started from")
    parser.add_argument("--provisional", action="store_true")
    given = vars(parser.parse_args())
    main(given.pop("run"), given.pop("name"), **given)

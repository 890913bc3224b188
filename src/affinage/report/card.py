"""The model card: what a model is, what it reached, how to load it. Every figure comes from the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from affinage.report.report import Report

_PIPELINES = {
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}


_STOCK = """import torch
from transformers import AutoTokenizer, {auto_class}

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {auto_class}.from_pretrained("{name}", dtype=torch.float32)"""
_COMPRESSED = """import affinage
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = affinage.load_model("{name}")  # stock transformers does not know all of its parts"""


def model_card(
    report: Report,
    *,
    base: str | None,
    architecture: str,
    recipe: str,
    made: str | None = None,
    front: Mapping[str, Any] | None = None,
    notes: str = "",
    stock: bool = True,
) -> str:
    """README.md of a model folder: front matter for the hub, figures, conditions, a loading snippet.

    `base`: the model it was made from; a path on this machine is left out of the front matter. `architecture`: the
    model's class, such as CamembertForMaskedLM. `made`: how it was made, where that was not one
    command of affinage. `front`: further front matter, as language and license. `notes`: Markdown before the figures.
    `stock`: whether transformers loads it.
    """
    name = Path(report.models[0].path).name if report.models else "model"
    head, pipeline = next((head, tag) for head, tag in _PIPELINES.items() if architecture.endswith(head))
    auto_class = f"AutoModel{head}"
    library = "transformers" if stock else "affinage"
    matter = {"library_name": library, "pipeline_tag": pipeline, "tags": ["affinage", recipe], **(front or {})}
    if base is not None and not Path(base).exists() and not base.startswith("shipped:"):
        matter["base_model"] = base
    origin = f" from `{Path(base).name}`" if base else ""
    made = made or (
        f"Made with affinage {report.provenance.affinage} by `affinage {report.command}`{origin}, recipe `{recipe}`\n"
        "(`recipe.yaml` beside this file)."
    )
    return f"""---
{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---

# {name}

{made}
{notes and f"{chr(10)}{notes.strip()}{chr(10)}"}
## Figures

{report.to_markdown()}
## Load it

```python
{_STOCK.format(name=name, auto_class=auto_class) if stock else _COMPRESSED.format(name=name)}
```
"""

"""The model card: what a model is, what it reached, how to load it. Every figure comes from the report."""

from pathlib import Path

import yaml

from affinage.report.report import Report

_PIPELINES = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}


def model_card(report: Report, *, base: str | None, architecture: str, recipe: str) -> str:
    """README.md of a model folder: front matter for the hub, figures, conditions, a loading snippet.

    `base`: the model it was made from; a path on this machine is left out of the front matter. `architecture`: the
    model's class, such as CamembertForMaskedLM.
    """
    name = Path(report.models[0].path).name if report.models else "model"
    head, pipeline = next((head, tag) for head, tag in _PIPELINES.items() if architecture.endswith(head))
    auto_class = f"AutoModel{head}"
    front = {"library_name": "transformers", "pipeline_tag": pipeline, "tags": ["affinage", recipe]}
    if base is not None and not Path(base).exists():
        front["base_model"] = base
    made = f" from `{Path(base).name}`" if base else ""
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# {name}

Made with affinage {report.provenance.affinage} by `affinage {report.command}`{made}, recipe `{recipe}`
(`recipe.yaml` beside this file).

## Figures

{report.to_markdown()}
## Load it

```python
import torch
from transformers import AutoTokenizer, {auto_class}

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {auto_class}.from_pretrained("{name}", dtype=torch.float32)
```
"""

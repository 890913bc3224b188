"""The folder that an export leaves: graph, tokenizer, config and card; it needs neither torch nor transformers."""

from pathlib import Path

import onnx
from transformers import PreTrainedTokenizerFast

from affinage.runtime.onnx.config import CONFIG, GRAPHS, TOKENIZER, OnnxConfig

_LARGEST_PROTOBUF = 2**31 - 2**24
"""bytes; what is larger keeps its weights in a file beside it"""


def write_graph(graph: onnx.ModelProto, folder: Path) -> Path:
    """`model.onnx`, and its weights beside it where one file may not be so large."""
    path = folder / GRAPHS["onnx"]
    beside = sum(len(one.raw_data) for one in graph.graph.initializer) > _LARGEST_PROTOBUF
    onnx.save(graph, str(path), save_as_external_data=beside, location=f"{path.name}.data")
    return path


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """`tokenizer.json` as the loaded tokenizer works, whatever file it came from; without truncation and padding."""
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))


def write_config_and_card(config: OnnxConfig, folder: Path, *, name: str, source: str) -> None:
    """`config.json` and `README.md`. `name`: the folder's in the end; `source`: the model's."""
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    (folder / "README.md").write_text(_card(config, name, source), encoding="utf-8")


_OUTPUTS = {
    "token": "`logits` (batch, length, classes)",
    "span": "`start_logits`, `end_logits` (batch, length)",
    "embedding": "`embeddings` (batch, width), not yet normalized",
    "fill_mask": "`logits` (places, vocabulary) at `positions` (places, 2): row and column of each place",
}


def _card(config: OnnxConfig, name: str, source: str) -> str:
    assert config.parity is not None
    weights = "float32" if config.int8 == "none" else f"int8 ({config.int8}, made for {config.target})"
    found, origin = config.parity, Path(source).name
    labels = f"\nClasses, in the order of the logits: {', '.join(config.labels)}.\n" if config.labels else ""
    file = "| `model.onnx` | the graph, for ONNX Runtime |"
    if config.graph == "openvino":
        file = "| `model.xml`, `model.bin` | the graph, for OpenVINO |"
    outputs = _OUTPUTS.get(config.kind, "`logits` (batch, classes)")
    return f"""---
tags: [affinage, onnx]
---

# {name}

A {config.architecture} model ({config.kind}), exported from `{origin}` by affinage {config.affinage}; weights in
{weights}.
{labels}
| file | what it is |
|---|---|
{file}
| `tokenizer.json` | for the library `tokenizers` |
| `config.json` | kind, labels, ids of special tokens, longest row |

Inputs: `input_ids`, `attention_mask` and, where the model takes them, `token_type_ids` (batch, length), int64, padded
on the right. Outputs: {outputs}.

Compared with PyTorch on {found.rows} rows of text: {found.agreement:.2%} of the answers are the same; logits differ by
up to {found.largest_difference:.2g} (the largest is {found.largest_logit:.2g}).

```python
import affinage

model = affinage.load("{name}")
```
"""

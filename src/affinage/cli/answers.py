"""How predictions are shown to people: the text, then what the model says about it."""

from collections.abc import Mapping, Sequence
from typing import Any

from affinage.cli.console import write

_SHOWN = 100
"""characters of a text that are shown"""


def show_answers(inputs: Sequence[Any], results: Sequence[Mapping[str, Any]]) -> None:
    """One block an input on stdout."""
    blocks = [
        "\n".join([_title(given), *("  " + line for line in _lines(result))])
        for given, result in zip(inputs, results, strict=True)
    ]
    write("\n".join(blocks))


def _title(given: Any) -> str:
    text = " | ".join(map(str, given.values())) if isinstance(given, Mapping) else str(given)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _lines(result: Mapping[str, Any]) -> list[str]:
    lines = [_line(answer) for answer in _answers(result)] or ["(nothing found)"]
    return [*lines, "(the text was truncated)"] if result.get("truncated") else lines


def _answers(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The answers within one result, best first."""
    if "labels" in result and "top" not in result:
        pairs = zip(result["labels"], result["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]
    answers: Sequence[Mapping[str, Any]] = result.get("entities", result.get("top", [result]))
    return answers


def _line(answer: Mapping[str, Any]) -> str:
    if "embedding" in answer:
        vector = answer["embedding"]
        return f"{', '.join(f'{x:.3f}' for x in vector[:6])}, … ({len(vector)} numbers)"
    if "value" in answer:
        return f"{answer['value']:.3f}"
    span = f"  {answer['start']}-{answer['end']}" if "start" in answer else ""
    if "entity_group" in answer:
        said = f"{answer['entity_group']:<6} {answer['word']}"
    elif "token_str" in answer:
        said = f"{answer['token_str']:<16} {answer['sequence']}"
    else:
        said = str(answer.get("label", answer.get("answer"))) or "(no answer)"
    return f"{answer['score']:.3f}  {said}{span}"

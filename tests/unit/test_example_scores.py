"""`examples.json`: round trip, and every way a file can be none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinage.errors import InputError
from affinage.evaluation.example_scores import (
    ExampleScores,
    PartScores,
    read_example_scores,
    references_fingerprint,
    write_example_scores,
)
from affinage.evaluation.metrics import metric

REFERENCES = [("B-LOC", "O"), ("O",), ("B-PER", "I-PER")]


def written(folder: Path) -> Path:
    rows = metric("entity_f1").rows([("B-LOC", "O"), ("B-PER",), ("O", "O")], REFERENCES)
    halves = np.array([[0.5, 1.0], [1 / 3, 1.0], [0.0, 1.0]])
    part = PartScores(references_fingerprint(REFERENCES), {"entity_f1": rows, "f1": halves})
    return write_example_scores(folder, ExampleScores("ner", {"test": part}))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = read_example_scores(tmp_path)
    assert found.task == "ner"
    part = found.parts["test"]
    assert part.fingerprint == references_fingerprint(REFERENCES)
    assert part.rows["entity_f1"].tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]
    assert part.rows["f1"].tolist() == [[0.5, 1.0], [1 / 3, 1.0], [0.0, 1.0]]
    assert '"entity_f1":[[1,1,1],[0,1,0],[0,0,1]]' in path.read_text()


def test_the_fingerprint_knows_what_is_expected_and_in_which_order() -> None:
    fingerprint = references_fingerprint(["a", "é"])
    assert len(fingerprint) == 64
    others = (["é", "a"], ["a", "é", "a"], ["aé"], [("a", "é")], [("a",), ("é",)])
    assert fingerprint not in {references_fingerprint(other) for other in others}
    assert references_fingerprint([("a",), ()]) == references_fingerprint([["a"], []])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"parts": {"test": {"fingerprint": "x"}}}, "parts.test.metrics: Field required"),
        ({"parts": {"test": {"fingerprint": "x", "metrics": {}}}}, "found no metric"),
        ({"metrics": {"entity_f1": []}}, "the same number of rows"),
        ({"metrics": {"accuracy": [[1, 1]], "f1": [[1, 1], [0, 1]]}}, r"same number.*'accuracy': 1, 'f1': 2"),
        ({"metrics": {"acuracy": [[1, 1]]}}, "unknown metric 'acuracy'. Did you mean 'accuracy'"),
        ({"metrics": {"accuracy": [[1, 1], [1]]}}, "the rows of accuracy are no statistics"),
        ({"metrics": {"accuracy": [[1]]}}, "the rows of accuracy are no statistics"),
        ({"metrics": {"accuracy": [[3, 1]]}}, "the rows of accuracy are no statistics"),
        ({"metrics": {"macro_f1": [[1, 1]]}}, "the rows of macro_f1 are no statistics"),
        ({"metrics": {"accuracy": [["x", 1]]}}, "valid number"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = written(tmp_path)
    content = json.loads(path.read_text())
    if "metrics" in change:
        content["parts"]["test"]["metrics"] = change["metrics"]
    else:
        content |= change
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=said) as error:
        read_example_scores(tmp_path)
    assert str(path) in str(error.value)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no examples\.json.*run its command again"):
        read_example_scores(tmp_path)
    (tmp_path / "examples.json").write_text("{")
    with pytest.raises(InputError, match="Invalid JSON"):
        read_example_scores(tmp_path)

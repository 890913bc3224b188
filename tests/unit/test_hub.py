"""Hub datasets: what counts as a name, class numbers become names, a hub out of reach is one sentence."""

from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets")

from affinage.data.hub import looks_like_hub_name  # noqa: E402
from affinage.data.readers import find_parts, read_rows  # noqa: E402
from affinage.errors import InputError  # noqa: E402


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub of one dataset, `owner/avis`, with splits train and validation."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
        }
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0], "tags": [[0, 1], []]}, features=features)

    def known(name: str) -> None:
        if name != "owner/avis":
            raise ConnectionError("Couldn't reach the Hub")

    def names(name: str, config: str | None = None) -> list[str]:
        known(name)
        return ["train", "validation", "extra"]

    def load(name: str, config: str | None = None, *, split: str) -> Any:
        known(name)
        return rows

    monkeypatch.setattr(datasets, "get_dataset_split_names", names)
    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.mark.parametrize("name", ["avis", "owner/avis", "owner/avis:fr", "squad_v1.1", "owner/avis[train]"])
def test_names(name: str) -> None:
    assert looks_like_hub_name(name)


@pytest.mark.parametrize(
    "name", ["avis.jsonl", "owner/avis.csv.gz", "a.txt", "./avis", "../avis", "/avis", "a/b/c", ""]
)
def test_paths(name: str) -> None:
    assert not looks_like_hub_name(name)


def test_what_stands_in_a_folder_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert not looks_like_hub_name("data/avis")


@pytest.mark.usefixtures("hub")
def test_rows_have_names_for_class_numbers() -> None:
    assert find_parts("owner/avis") == {"train": "owner/avis[train]", "valid": "owner/avis[validation]"}
    columns = {"text": "text", "label": "label", "tags": "tags"}
    found = list(read_rows("owner/avis[train]", columns=columns))
    assert found[0].values == {"text": "a", "label": "positive", "tags": ["O", "B-PER"]}
    assert found[1].where == "owner/avis[train]#2"


@pytest.mark.usefixtures("hub")
def test_what_is_not_there() -> None:
    with pytest.raises(InputError, match=r"unknown split 'tran'. Did you mean 'train'"):
        list(read_rows("owner/avis[tran]", columns={}))
    with pytest.raises(InputError, match=r"say which split, for example 'owner/avis\[train\]'"):
        list(read_rows("owner/avis", columns={}))
    with pytest.raises(InputError, match=r"'avis' does not exist here, and .* cannot be read: Couldn't reach the Hub"):
        find_parts("avis")

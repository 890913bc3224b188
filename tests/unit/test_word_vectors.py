"""Word vectors: files, good and hostile, neighbours, and training, against plain NumPy."""

import gzip
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from affinage.distillation.augmentation import vectors as module
from affinage.distillation.augmentation.train_vectors import VectorSettings, positive_pmi, train_vectors
from affinage.distillation.augmentation.vectors import WordVectors, read_vectors
from affinage.errors import DataError, InputError

GOOD = "4 3\nfromage 1 0 0\nbeurre 0.9 0.1 0.1\ntrain 0 0 1\nGare 0.1 0.2 0.9\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_file_with_and_without_its_first_line_and_packed(tmp_path: Path) -> None:
    word2vec = read_vectors(write(tmp_path / "a.vec", GOOD))
    glove = read_vectors(write(tmp_path / "b.txt", GOOD.partition("\n")[2]))
    packed = read_vectors(write(tmp_path / "c.vec.gz", gzip.compress(GOOD.encode(), mtime=0)))
    trailing = read_vectors(write(tmp_path / "d.vec", GOOD.replace("\n", " \r\n")))  # as fastText ends its lines
    for found in (word2vec, glove, packed, trailing):
        assert found.words == ("fromage", "beurre", "train", "Gare")
        assert np.allclose(np.linalg.norm(found.units, axis=1), 1)
    assert word2vec.nearest(["fromage", "gare", "Train", "inconnu"], 2) == [
        ["beurre", "Gare"],
        ["train", "beurre"],
        ["Gare", "beurre"],
        [],
    ]


def test_what_is_no_word_or_comes_again_or_points_nowhere_is_left_out(tmp_path: Path) -> None:
    text = "le 0 1\n, 1 1\n14 1 2\nau lait 1 0\nle 1 1\nvide 0 0\n\u00e9t\u00e9 1 1\n"
    found = read_vectors(write(tmp_path / "a.vec", text))
    assert found.words == ("le", "été")
    assert found.units[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2 3\nle 1 0 0\nla 1 0\n", ":3: expected a word and 3 numbers, with spaces between; got 2 numbers"),
        ("le 1 0 0\nla 1 zéro 0\n", ":2: 'zéro' is not a number"),
        ("le 1 nan 0\n", ":1: holds a number that is not finite"),
        ("le 1 0\nla 1e999 0\n", ":2: holds a number that is not finite"),
        ("le 1e30 0\n", ":1: holds a number that is not finite, or is beyond 1e18"),
        ("", ":1: no word vector in it"),
        ("2 3\n", ":1: no word vector in it"),
        ("le 0 0\n", ":1: no word vector in it"),
        ("10 99999\n", ":1: 99999 numbers a word; expected 2 to 2,048"),
        ("10 " + 50 * "9" + "\n", " numbers a word; expected 2 to 2,048"),
        ("un texte\n", ":1: 1 numbers a word; expected 2 to 2,048. Is it a .vec file, as text?"),
        (b"le 1 0\nl\xe9 1 0\n", ":2: is not UTF-8"),
        (b"\x80\x03binary\x00", ":1:"),
        ("le\x00 1 0\n", ":1: holds a NUL byte"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = write(tmp_path / "a.vec", text)
    with pytest.raises(DataError) as caught:
        read_vectors(path)
    assert str(caught.value).startswith(f"{path}:")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_vectors(tmp_path / "none.vec")
    with pytest.raises(InputError, match="is a folder"):
        read_vectors(tmp_path)


def test_of_a_big_file_the_first_words_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORDS", 2)
    assert read_vectors(write(tmp_path / "a.vec", GOOD)).words == ("fromage", "beurre")
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    assert read_vectors(write(tmp_path / "a.vec", GOOD)).words == ("fromage",)


def test_neighbours_are_those_of_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(40, 6))
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(40)]
    vectors = WordVectors.of(words, table.astype(np.float32))
    monkeypatch.setattr(module, "_SCORES", 100)  # two words at a time
    for word, found in zip(words, vectors.nearest(words, 7), strict=True):
        own = table[words.index(word)]
        cosine = {w: own @ v / math.sqrt(own @ own * (v @ v)) for w, v in zip(words, table, strict=True) if w != word}
        assert found == sorted(cosine, key=lambda w: -cosine[w])[:7]
    assert len(vectors.nearest(words[:1], 99)[0]) == 39


TEXT = [
    "Le fromage frais et le pain chaud, le fromage sec et le pain dur.",
    "Le pain frais et le fromage chaud.",
    "Le train lent et la gare vide, le train vide et la gare lente.",
    "La gare vide, le train lent.",
]


def mutual_information(lines: list[list[str]], window: int) -> tuple[list[str], dict[tuple[str, str], float]]:
    """By hand: pairs at most `window` words apart count 1/distance, context counts are raised to the power 0.75."""
    count: Counter[tuple[str, str]] = Counter()
    for line in lines:
        for i, w in enumerate(line):
            for j, c in enumerate(line):
                if 0 < abs(i - j) <= window:
                    count[w, c] += 1 / abs(i - j)
    words = sorted({w for w, _ in count})
    context = Counter({c: sum(n for (_, d), n in count.items() if d == c) ** 0.75 for c in words})
    total = sum(count.values())

    def share(w: str) -> float:
        return sum(n for (v, _), n in count.items() if v == w) / total

    pmi = {(w, c): math.log(n / total / (share(w) * context[c] / context.total())) for (w, c), n in count.items()}
    return words, {pair: value for pair, value in pmi.items() if value > 0}


def test_mutual_information_is_that_of_the_definition() -> None:
    words, expected = mutual_information([["a", "b", "a"], ["b", "c"]], window=2)
    # (a, b), (b, a): 2 each; (a, a): 1/2 twice; (b, c), (c, b): 1 each
    pairs = {("a", "b"): 2, ("b", "a"): 2, ("a", "a"): 1, ("b", "c"): 1, ("c", "b"): 1}
    rows, columns, values = positive_pmi(
        np.array([words.index(w) for w, _ in pairs]),
        np.array([words.index(c) for _, c in pairs]),
        np.array(list(pairs.values()), np.float64),
        3,
    )
    found = {(words[r], words[c]): v for r, c, v in zip(rows, columns, values, strict=True)}
    assert found == pytest.approx(expected)
    assert 0 < len(found) < len(pairs)


def test_vectors_are_the_truncated_singular_value_decomposition() -> None:
    """Against NumPy's of the whole table: left vectors times the roots of the singular values."""
    lines = [["ab", "cd", "ef", "gh"], ["ab", "ef", "ij"], ["gh", "ij", "kl", "ab"], ["cd", "kl", "kl", "ef"]]
    vectors = train_vectors([" ".join(line) for line in lines], VectorSettings(dimensions=3, window=2, least=1))
    words, expected = mutual_information(lines, window=2)
    table = np.zeros((len(words), len(words)))
    for (w, c), value in expected.items():
        table[words.index(w), words.index(c)] = value
    left, sizes, _ = np.linalg.svd(table)
    rows = left[:, :3] * np.sqrt(sizes[:3])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert vectors is not None
    order = [vectors.words.index(word) for word in words]
    assert np.allclose(vectors.units[order] @ vectors.units[order].T, rows @ rows.T, atol=1e-4)


def test_words_in_like_company_are_neighbours() -> None:
    settings = VectorSettings(dimensions=50, window=2, least=2)
    vectors = train_vectors(TEXT * 3, settings)
    assert vectors is not None
    assert set(vectors.words) >= {"fromage", "pain", "train", "gare"}
    assert "le" in vectors.words and "Le" not in vectors.words  # the spelling seen most often
    again = train_vectors(TEXT * 3, settings)
    assert again is not None and np.array_equal(again.units, vectors.units)
    near = dict(zip(["fromage", "train"], vectors.nearest(["fromage", "train"], 3), strict=True))
    assert "pain" in near["fromage"] and not {"pain", "fromage"} & set(near["train"])


def test_too_little_text_gives_no_vectors() -> None:
    assert train_vectors([]) is None
    assert train_vectors(["Rien du tout.", "3 4 5"]) is None

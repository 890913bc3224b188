"""How close an answer is to the accepted ones: SQuAD's exact match and word overlap, and their French kin."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FRENCH_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "«»“”„‘’…–—‹›", " "))


def normalise_answer(text: str) -> str:
    """The official SQuAD normalisation: lower case, no ASCII punctuation, no English article, single spaces."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def normalise_french_answer(text: str) -> str:
    """The same for French: punctuation, French quotation marks and dashes too, becomes a space (so l'État is two
    words), then the articles le la les l' un une des du au aux and the elided d' are left out.

    Original: SQuAD's own leaves French articles in. Scores under it are named `_fr` and compare with nothing published.
    """
    text = text.lower().translate(_FRENCH_PUNCTUATION)
    return " ".join(re.sub(r"\b(le|la|les|l|un|une|des|du|au|aux|d)\b", " ", text).split())


def exact(normalise: Callable[[str], str]) -> Callable[[str, Sequence[str]], float]:
    """1 where the prediction equals one of the answers, once normalised; no answer at all counts as the empty one."""

    def value(prediction: str, answers: Sequence[str]) -> float:
        return float(normalise(prediction) in _accepted(answers, normalise))

    return value


def token_f1(normalise: Callable[[str], str]) -> Callable[[str, Sequence[str]], float]:
    """Best F1 over the answers between the multisets of words; where one side is empty, 1 if both are (SQuAD 2.0)."""

    def one(predicted: list[str], answer: list[str]) -> float:
        if not predicted or not answer:
            return float(predicted == answer)
        common = (Counter(predicted) & Counter(answer)).total()
        return 2 * common / (len(predicted) + len(answer))

    def value(prediction: str, answers: Sequence[str]) -> float:
        predicted = normalise(prediction).split()
        return max(one(predicted, answer.split()) for answer in _accepted(answers, normalise))

    return value


def _accepted(answers: Sequence[str], normalise: Callable[[str], str]) -> set[str]:
    """The answers, normalised; as in SQuAD 2.0's script those of which nothing is left do not count beside others."""
    found = {normalise(answer) for answer in answers}
    return found - {""} or {""}

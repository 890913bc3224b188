"""The shapes of well-known encoders, as data, and a shape as a person writes it."""

from collections.abc import Mapping

from affinage.errors import InputError, unknown
from affinage.training.plan import Shape
from affinage.training.quantities import count_of, pairs_of

SHAPES: Mapping[str, Shape] = {
    "camembert-base": Shape(12, 768, 12, 3072, 32_005),
    "camembert-large": Shape(24, 1024, 16, 4096, 32_005),
    "distilcamembert-base": Shape(6, 768, 12, 3072, 32_005),
    "bert-base": Shape(12, 768, 12, 3072, 30_522, positions=512, token_types=2),
    "bert-large": Shape(24, 1024, 16, 4096, 30_522, positions=512, token_types=2),
    "distilbert-base": Shape(6, 768, 12, 3072, 30_522, positions=512, token_types=0),
    "roberta-base": Shape(12, 768, 12, 3072, 50_265),
    "xlm-roberta-base": Shape(12, 768, 12, 3072, 250_002),
}

_KEYS = ("layers", "hidden", "vocab", "intermediate", "heads", "positions", "types")


def shape(given: str) -> Shape:
    """`camembert-base`, or `layers=12,hidden=768,vocab=32005[,intermediate=3072][,heads=12][,positions=514][,types=1]`.

    Raises: InputError for an unknown name, a key that is missing or unknown, or sizes that do not fit together.
    """
    text = given.strip().lower()
    if "=" not in text:
        if text not in SHAPES:
            raise InputError(f"{unknown('shape', given, SHAPES)}; or give --shape layers=…,hidden=…,vocab=…")
        return SHAPES[text]
    values = {key: _whole(value, key) for key, value in pairs_of(text, option="--shape", known=_KEYS).items()}
    if missing := [key for key in ("layers", "hidden", "vocab") if key not in values]:
        raise InputError(f"--shape '{given}': missing: {', '.join(missing)}")
    width = values["hidden"]
    heads = values.get("heads", max(1, width // 64))
    if width % heads:
        raise InputError(f"--shape '{given}': hidden {width} is not a multiple of heads {heads}; give heads=…")
    return Shape(
        layers=values["layers"],
        hidden_size=width,
        heads=heads,
        intermediate_size=values.get("intermediate", 4 * width),
        vocab_size=values["vocab"],
        positions=values.get("positions", 514),
        token_types=values.get("types", 1),
    )


def _whole(value: str, key: str) -> int:
    if key == "types" and value == "0":
        return 0
    number = count_of(value, name=f"--shape {key}")
    if number != int(number):
        raise InputError(f"--shape {key}={value}: expected a whole number")
    return int(number)

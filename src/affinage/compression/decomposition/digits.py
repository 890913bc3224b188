"""How a side of a matrix is cut into several sides of a tensor."""

from math import ceil, prod


def digits(size: int, count: int) -> tuple[int, ...]:
    """`count` factors of `size`, as equal as its divisors let them be, the smallest first."""
    found: list[int] = []
    for left in range(count, 1, -1):
        ideal = size ** (1 / left)
        divisors = (d for d in range(1, size + 1) if size % d == 0)
        found.append(min(divisors, key=lambda d: (abs(d - ideal), d)))
        size //= found[-1]
    return tuple(sorted([*found, size]))


def digits_of_at_least(size: int, count: int) -> tuple[int, ...]:
    """`count` equal numbers, the last as small as can be, whose product is at least `size`."""
    side = ceil(round(size ** (1 / count), 9))
    first = (side,) * (count - 1)
    return (*first, ceil(size / prod(first)))

"""YAML that a person wrote, read strictly: no key twice, nothing that nests or unfolds without end."""

from typing import Any

import yaml

from affinage.errors import legible

MAX_VALUES = 10_000
"""Keys and values that a text may hold, aliases unfolded."""
MAX_DEPTH = 40
"""Lists and mappings within one another, aliases unfolded."""


def parse(text: str) -> Any:
    """What YAML text holds. Raises: yaml.YAMLError in one line, with the text's line where there is one."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {})
            return _unshared(loader.construct_document(node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "is not YAML"
        raise yaml.YAMLError(
            f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
        ) from None
    except yaml.reader.ReaderError as error:
        raise yaml.YAMLError(f"character {error.position + 1}: {error.reason}") from None
    except RecursionError:
        raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep") from None
    # What PyYAML trips over: a month 13, an integer of 5,000 digits, `!!timestamp x`, `!!bool x`, an empty `!!int`.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise yaml.YAMLError(f"a value that cannot be read ({type(error).__name__}: {legible(error, 100)})") from None


def scalar(text: str) -> Any:
    """A value from the command line. YAML 1.1 reads `1e-4` as text; people mean the number."""
    value = parse(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def put(node: Any, parts: list[str], value: Any, key: str) -> str | None:
    """Write `value` at the path `parts` of mappings and lists; the problem in words, or None. `key`: for the words."""
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(node, list):
            if not part.isdecimal() or len(part) > 9 or int(part) >= len(node):
                return f"{key}: '{legible(part)}' must be an index below {len(node)}"
            if last:
                node[int(part)] = value
            else:
                node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = value
            else:
                node = node.setdefault(part, {})
        else:
            return f"{key}: '{legible('.'.join(parts[:i]))}' holds a value, not keys"
    return None


def _unshared(value: Any) -> Any:
    """Lists and mappings of their own where aliases stood: one can be changed without the other."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Number of values in a node and their depth; an alias counts as what it stands for."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise yaml.MarkedYAMLError(problem="an alias that holds itself", problem_mark=node.start_mark)
        return found
    known[id(node)] = None
    children = []
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(node)
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    elif any("\ud800" <= character <= "\udfff" for character in node.value):
        raise yaml.MarkedYAMLError(problem="half a surrogate pair", problem_mark=node.start_mark)
    inside = [_measure(child, known) for child in children]
    values = 1 + sum(size for size, _ in inside)
    depth = 1 + max((deep for _, deep in inside), default=-1)
    if values > MAX_VALUES:
        raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES:,} keys and values", problem_mark=node.start_mark)
    if depth > MAX_DEPTH:
        raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=node.start_mark)
    known[id(node)] = values, depth
    return values, depth


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value[:60]!r} stands there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, key.value))

"""What can be named in a recipe: name -> class and the source it implements."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from affinage.errors import InputError, unknown

T = TypeVar("T")
C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered component: its name, the dataclass, and the paper and equation it implements (or "original")."""

    name: str
    component: type[T]
    source: str

    @property
    def summary(self) -> str:
        """First line of the component's docstring."""
        return (self.component.__doc__ or "").strip().splitlines()[0]


class Registry(Generic[T]):
    """Components of one kind by name. A component is a frozen dataclass whose fields are its parameters."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, *, source: str) -> Callable[[C], C]:
        """Decorator that registers a dataclass under `name`; a name is given once.

        Raises: ValueError if the name is taken or the source is empty (a programmer's mistake).
        """

        def add(component: C) -> C:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            if not source:
                raise ValueError(f"{self.kind} '{name}' needs a source")
            self._entries[name] = Entry(name, component, source)
            return component

        return add

    def entry(self, name: str) -> Entry[T]:
        """The entry called `name`. Raises: InputError with the nearest name if there is none."""
        if name not in self._entries:
            raise InputError(unknown(self.kind, name, self._entries))
        return self._entries[name]

    def build(self, name: str, params: Mapping[str, Any] | None = None) -> T:
        """The component `name` with these parameters, checked against its fields.

        Raises: InputError for an unknown name, an unknown parameter, or a value outside its type or range.
        """
        component = self.entry(name).component
        known = {field.name for field in fields(component)}  # type: ignore[arg-type]  # class variables are no parameters
        for key in params or {}:
            if key not in known:
                raise InputError(f"{self.kind} '{name}': " + unknown("parameter", key, known))
        try:
            return TypeAdapter(component).validate_python(dict(params or {}))
        except ValidationError as error:
            problems = "; ".join(_said(p["loc"], p["msg"]) for p in error.errors())
            raise InputError(f"{self.kind} '{name}': {problems}") from None

    def entries(self) -> list[Entry[T]]:
        """Every entry, sorted by name."""
        return [self._entries[name] for name in sorted(self._entries)]


def _said(place: tuple[int | str, ...], message: str) -> str:
    """A problem of a field, or of several together."""
    where = ".".join(map(str, place))
    return f"{where}: {message}" if where else message.removeprefix("Value error, ")

"""Arguments of operations: plain JSON values, each taken with a check that names it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from p2pmed.errors import ConfigError

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["Arguments", "Operation", "Report"]

Report: TypeAlias = "Callable[[dict[str, Any]], None]"
"""Takes progress: ``{"done": 3, "of": 10, "what": "files"}``."""
Operation: TypeAlias = "Callable[[Node, Arguments, Report], Awaitable[dict[str, Any]]]"

_MISSING = object()


class Arguments:
    """What was asked; every getter raises ``ConfigError`` that names the argument."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def text(self, name: str, default: Any = _MISSING, *, limit: int = 4_096) -> str:
        """A text of at most ``limit`` characters."""
        value = self._take(name, default)
        if value is default and default is not _MISSING:
            return default  # type: ignore[no-any-return]
        if not isinstance(value, str) or len(value) > limit:
            raise ConfigError(f"{name}: a text of at most {limit} characters is needed")
        return value

    def number(self, name: str, default: Any = _MISSING, *, low: int = 0, high: int = 2**53) -> int:
        """A whole number in ``low..high``."""
        value = self._take(name, default)
        if value is default and default is not _MISSING:
            return default  # type: ignore[no-any-return]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name}: a whole number from {low} to {high} is needed")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: true or false is needed")
        return value

    def key(self, name: str, default: Any = _MISSING, *, size: int = 32) -> bytes:
        """``size`` bytes, given in hex."""
        value = self._take(name, default)
        if value is default and default is not _MISSING:
            return default  # type: ignore[no-any-return]
        try:
            found = bytes.fromhex(value) if isinstance(value, str) else b""
        except ValueError:
            found = b""
        if len(found) != size:
            raise ConfigError(f"{name}: {size} bytes in hex ({2 * size} digits) are needed")
        return found

    def texts(self, name: str, *, count_max: int = 1_000) -> list[str]:
        """A list of texts; empty if it was not given."""
        value = self._take(name, [])
        fits = isinstance(value, list) and len(value) <= count_max
        if not fits or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{name}: a list of at most {count_max} texts is needed")
        return list(value)

    def keys(self, name: str, *, size: int = 32, count_max: int = 64) -> list[bytes]:
        """A list of keys or ids of ``size`` bytes in hex; empty if it was not given."""
        texts = self.texts(name, count_max=count_max)
        return [Arguments({name: text}).key(name, size=size) for text in texts]

    def object(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        value = self._take(name, _MISSING)
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: a JSON object is needed")
        return value

    def _take(self, name: str, default: Any) -> Any:
        value = self._values.get(name, default)
        if value is None and default is not _MISSING:
            return default
        if value is _MISSING or value is None:
            raise ConfigError(f"{name} is needed")
        return value

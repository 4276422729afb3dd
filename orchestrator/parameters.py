"""A task's parameters: which a node must give, which it may, and of what types."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from .graph.items import is_item, takes_item
from .graph.references import Path, printed, references
from .graph.scheduled import is_scheduled, scheduled
from .graph.wording import Suggestions, shown

_LISTS = (list, tuple, AbstractSequence, set, frozenset)


@dataclass(frozen=True)
class Parameters:
    """The parameters of one task.

    required, known: by name, in order. open: whether `**kwargs` takes any other. hints: types by name where declared.
    """

    required: tuple[str, ...]
    known: tuple[str, ...]
    open: bool
    hints: Mapping[str, Any]
    _adapters: dict[Any, TypeAdapter[Any] | None]

    @classmethod
    def of(cls, function: Callable[..., Any], signature: inspect.Signature) -> Parameters:
        """Read `signature`, and types from `function`; types that cannot be evaluated are not checked."""
        named = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        try:
            hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
        except Exception:  # noqa: BLE001 - evaluating annotations runs the user's code; a name imported for type checkers only is usual
            hints = {}
        return cls(
            required=tuple(p.name for p in named if p.default is p.empty),
            known=tuple(p.name for p in named),
            open=any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()),
            hints={p.name: hints[p.name] for p in named if p.name in hints},
            _adapters={},
        )

    def problems(self, task: str, params: Mapping[str, Any], words: Suggestions) -> list[str]:
        """Return a sentence for each parameter that is missing, unknown, or a literal of another type than declared."""
        found = [f"missing parameter {name!r} of task {task!r}; give it in params" for name in self.required if name not in params]
        for name in params:
            if name in self.known:
                if name in self.hints:
                    found += self._mismatches((name,), params[name], self.hints[name])
            elif not self.open:
                takes = f"it takes {', '.join(self.known)}" if self.known else "it takes none"
                found.append(f"unknown parameter {shown(name)} of task {task!r}; {words.did_you_mean(name, self.known, takes)}")
        return found

    def _mismatches(self, path: Path, value: Any, hint: Any) -> Iterator[str]:
        """What a reference will give is not known yet, so around references only the literal items are compared."""
        if isinstance(value, dict) and ("$ref" in value or is_scheduled(value) or is_item(value)):
            return
        if not any(references({"": value})) and not any(scheduled(value)) and not takes_item(value):
            if not self._fits(value, hint):
                yield f"`{printed(path)}` is {shown(value)}; the task takes {_named(hint)}"
            return
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if isinstance(value, (list, tuple)) and origin in _LISTS and arguments and (len(arguments) == 1 or arguments[1] is ...):
            for index, item in enumerate(value):
                yield from self._mismatches((*path, index), item, arguments[0])
        elif isinstance(value, dict) and origin in (dict, Mapping) and len(arguments) == 2:
            for key, item in value.items():
                yield from self._mismatches((*path, key), item, arguments[1])
        elif isinstance(value, (list, tuple)) and hint in (str, int, float, bool, bytes, dict):
            yield f"`{printed(path)}` is a list; the task takes {_named(hint)}"

    def _fits(self, value: Any, hint: Any) -> bool:
        adapter = self._adapter(hint)
        if adapter is None:
            return True
        try:
            # As JSON, which is what the task will be given: a list may stand for a tuple there, a text for a date.
            adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError:
            return False
        return True

    def _adapter(self, hint: Any) -> TypeAdapter[Any] | None:
        key = id(hint)  # hints live as long as this object, and not every one can be hashed
        if key not in self._adapters:
            try:
                self._adapters[key] = TypeAdapter(hint)
            except (PydanticUserError, TypeError, NameError):  # a class of the user's own that says nothing about JSON
                self._adapters[key] = None
        return self._adapters[key]


def _named(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")

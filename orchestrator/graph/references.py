"""References: how `params` name the results of other nodes, and how results take their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenancy.errors import HeadgateError

from .items import is_item

Path = tuple[str | int, ...]


class _Missing:
    """The result of a node that has none."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Reference:
    """One `{"$ref": node}` inside `params`.

    path: keys and indexes that lead to it. in_list: it is itself an item of a list, where a missing result drops out.
    default: what stands in where the node has no result, or MISSING where the reference is bare.
    """

    node: str
    path: Path
    in_list: bool
    default: Any = MISSING

    @property
    def bare(self) -> bool:
        """Whether nothing stands in for a missing result: no default, and not an item of a list."""
        return self.default is MISSING and not self.in_list


def references(params: Mapping[str, Any]) -> Iterator[Reference]:
    """Yield the references in valid `params`, in an order that does not depend on the order of keys.

    The order matters: a spec that went through its canonical form must give the same parents in the same order.
    """
    stack: list[tuple[Path, Any, bool]] = [((key,), params[key], False) for key in sorted(params, reverse=True)]
    while stack:
        path, value, in_list = stack.pop()
        if isinstance(value, dict):
            if "$ref" in value:
                yield Reference(value["$ref"], path, in_list, value.get("default", MISSING))
            else:
                stack.extend(((*path, key), value[key], False) for key in sorted(value, reverse=True))
        elif isinstance(value, (list, tuple)):
            stack.extend(((*path, index), value[index], True) for index in range(len(value) - 1, -1, -1))


def substitute(params: Mapping[str, Any], results: Mapping[str, Any], item: Any = MISSING) -> dict[str, Any]:
    """Return `params` with each reference replaced by its node's result, and the sign of the item by `item`, if there is one; pure.

    results: by node id; a node that is absent or MISSING has none, one whose result is None has one. Without a result a
    reference gives its default; without a default it drops out of a list. Results are put in as they are: what looks like a
    reference inside a result is data. Raises HeadgateError for a bare reference without a result, which a required
    node cannot have after validation and an optional node must not reach: it is skipped with its parent.
    """
    return {key: _substituted(value, results, item, (key,)) for key, value in params.items()}


def _substituted(value: Any, results: Mapping[str, Any], item: Any, path: Path) -> Any:
    if isinstance(value, (list, tuple)):
        kept = (inner for inner in enumerate(value) if not _drops_out(inner[1], results))
        return [_substituted(inner, results, item, (*path, i)) for i, inner in kept]
    if not isinstance(value, dict):
        return value
    if item is not MISSING and is_item(value):
        return item
    if "$ref" not in value:
        return {key: _substituted(inner, results, item, (*path, key)) for key, inner in value.items()}
    result = results.get(value["$ref"], MISSING)
    if result is MISSING:
        result = value.get("default", MISSING)
    if result is MISSING:
        raise HeadgateError(f"params.{printed(path)} refers to node {value['$ref']!r}, which has no result; give the reference a default")
    return result


def _drops_out(item: Any, results: Mapping[str, Any]) -> bool:
    return isinstance(item, dict) and "$ref" in item and "default" not in item and results.get(item["$ref"], MISSING) is MISSING


def printed(path: Path) -> str:
    """Return a path as people write it, `drafts[0].text`, cut to 80 characters, control characters escaped."""
    text = ""
    for step in path:
        name = step if isinstance(step, int) or step.isprintable() else step.encode("unicode_escape").decode()
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else name
        if len(text) > 80:
            return text[:77] + "..."
    return text

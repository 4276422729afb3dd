"""The tasks that this process knows: what they are called, what they take and what they are expected to cost."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tenancy.errors import Conflict

from .graph.model import Variant
from .graph.wording import Suggestions
from .limit import Limit
from .parameters import Parameters


@dataclass(frozen=True)
class TaskDefinition:
    """A task as it was declared: the defaults of every node that runs it.

    name: in Celery and in graphs. function: the plain function; of an adopted Celery task, its `run`.
    signature: of what a node's params give, without self. estimate: micros by category. value: 0 to 10^9.
    max_cost: micros of one execution, or None. adopted: the Celery task, or None. pool: the workers that may run it, or None for the
    tenant's. limits: what it takes of things that are scarce. expected_s: how long it takes until that is learned, or None.
    """

    name: str
    function: Callable[..., Any]
    signature: inspect.Signature
    estimate: Mapping[str, int] = field(default_factory=lambda: {"compute": 1000})
    value: int = 1
    variants: tuple[Variant, ...] = ()
    max_cost: int | None = None
    adopted: Any = None
    pool: str | None = None
    limits: tuple[Limit, ...] = ()
    expected_s: float | None = None

    @property
    def is_async(self) -> bool:
        """Whether the function returns a coroutine, which the gate awaits."""
        return inspect.iscoroutinefunction(inspect.unwrap(self.function))

    @property
    def origin(self) -> tuple[str, str]:
        """Module and qualified name: the same after a reload, and for a script run as `__main__` or imported."""
        function = inspect.unwrap(self.function)
        return module_name(function), getattr(function, "__qualname__", type(function).__qualname__)

    @property
    def source(self) -> tuple[str, str]:
        """File and qualified name: the same under whatever name its module was imported, as the shipped tasks are."""
        function = inspect.unwrap(self.function)
        code = getattr(function, "__code__", None)
        module, name = self.origin
        return (code.co_filename, name) if code is not None else (module, name)

    @cached_property
    def parameters(self) -> Parameters:
        """The signature, made ready to check params against."""
        return Parameters.of(self.function, self.signature)

    def problems(self, params: Mapping[str, Any], words: Suggestions | None = None) -> list[str]:
        """Return a sentence for each missing or unknown parameter and each literal of another type."""
        return self.parameters.problems(self.name, params, words or Suggestions())


class Registry:
    """Task definitions by name. Safe to use from several threads."""

    def __init__(self) -> None:
        self._definitions: dict[str, TaskDefinition] = {}
        self._callbacks: list[Callable[[TaskDefinition], object]] = []
        self._lock = threading.RLock()

    def register(self, definition: TaskDefinition) -> None:
        """Add a definition and tell subscribers.

        The same function again (a reload) takes the place of the earlier; Conflict for another function under a known name, and for
        a limit that another task declares with other numbers.
        """
        with self._lock:
            known = self._definitions.get(definition.name)
            if known is not None and known.origin != definition.origin and known.source != definition.source:
                raise Conflict(
                    f"the task name {definition.name!r} is taken by {'.'.join(known.origin)} and cannot be given to "
                    f"{'.'.join(definition.origin)}; pass name= to one of them"
                )
            self._check_limits(definition)
            self._definitions[definition.name] = definition
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback(definition)

    def get(self, name: str) -> TaskDefinition | None:
        """Return the definition called `name`, or None."""
        return self._definitions.get(name)

    def names(self) -> tuple[str, ...]:
        """Return the known names, sorted."""
        with self._lock:
            return tuple(sorted(self._definitions))

    def limits_of(self, name: str) -> tuple[Limit, ...]:
        """Return what holds for messages of the task `name`: its own limits, and those of the tasks that its declared variants name.

        A message is popped before its variant is known for good, and it always names the node's own task.
        """
        definition = self._definitions.get(name)
        if definition is None:
            return ()
        others = (self._definitions.get(variant.task) for variant in definition.variants if variant.task is not None)
        every = [definition, *(other for other in others if other is not None)]
        return tuple({limit.key: limit for each in every for limit in each.limits}.values())

    def _check_limits(self, definition: TaskDefinition) -> None:
        for limit in definition.limits:
            for other in self._definitions.values():
                known = next((each for each in other.limits if each.key == limit.key), limit)
                if known != limit and other.name != definition.name:
                    raise Conflict(
                        f"the limit {limit.key!r} is ({known}) for the task {other.name!r} and ({limit}) for {definition.name!r}; "
                        "a key has one limit: make it once and give it to both"
                    )

    def subscribe(self, callback: Callable[[TaskDefinition], object]) -> None:
        """Call `callback` with each definition, those there are and those to come."""
        with self._lock:
            self._callbacks.append(callback)
            present = tuple(self._definitions.values())
        for definition in present:
            callback(definition)


registry = Registry()


def module_name(function: Callable[..., Any]) -> str:
    """Return the importable name of the module that defines `function`.

    A script that runs is `__main__` to itself and goes by its file's stem anywhere else, on the workers first of all.
    """
    module = getattr(function, "__module__", None) or "__main__"
    if module not in ("__main__", "__mp_main__"):  # the latter in children that multiprocessing spawned
        return str(module)
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"

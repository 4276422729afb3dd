"""The node task: gate, run, record. What Celery runs for a node of a graph."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from billiard.process import current_process
from celery import Task
from celery.exceptions import Ignore, MaxRetriesExceededError, Retry, SoftTimeLimitExceeded

from cost.meter import Execution, Usage, metering
from cost.middleware import Spent, write_cats
from cost.prices import write_lines
from orchestrator.attempts import Fatal, Retryable
from orchestrator.expander import Expander
from orchestrator.expansion import Expansion, NothingGathered, NotMappable
from orchestrator.graph import Graph
from orchestrator.graph.references import MISSING, references, substitute
from orchestrator.kernel import Kernel
from orchestrator.log_context import about
from orchestrator.logs.capture import Capture
from orchestrator.logs.line import LogName
from orchestrator.patience import patiently
from orchestrator.redaction import secrets_in
from orchestrator.registry import TaskDefinition, registry
from orchestrator.results import NotStorable
from orchestrator.state import ROWS_MAX
from tenancy.errors import BudgetRefused, GraphInvalid, HeadgateError

logger = logging.getLogger(__name__)

DONE = "headgate"
"""What a node returns to Celery: results travel by reference."""

PATIENCE_S = 120.0
"""How long an execution waits for Redis, or for the next epoch, before it gives up."""

MESSAGE_CHARS = 2_000
TRACEBACK_CHARS = 8_000

NO_RETRY = -1


class NodeFailed(HeadgateError):
    """The node has failed before; its message came once more."""


class NodeCancelled(Ignore):
    """The node is cancelled, or its parents' outcomes left it none of its own: the worker's main process tells Celery so (request.py).

    An Ignore: no result, no chord part, nothing that follows.
    """


class _AskedToRetry(Retry):
    """An adopted task called `self.retry`; a Retry, which Celery's `autoretry_for` lets pass."""

    def __init__(self, cause: BaseException | None, countdown_s: float) -> None:
        super().__init__(str(cause) if cause else "the task asked to be retried")
        self.cause = cause
        self.countdown_s = countdown_s


class NodeTask(Task):
    """Base of every Celery task that can be a node.

    A message without our headers is an ordinary Celery task and runs as stock Celery runs it.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    # A node's message carries no arguments, and Celery would refuse to publish the next step of a chain for want of them.
    typing = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request
        node = getattr(request, "headgate", None)
        delivery = getattr(request, "headgate_delivery", None)
        if not node or not delivery:
            return super().__call__(*args, **kwargs)
        execution = _Execution(self, request, node, delivery)
        with about(tenant=execution.tenant, run=execution.run_id, generation=execution.generation, node=execution.node_id):
            return execution.run()

    def headgate_call(self, **params: Any) -> Any:
        """Call the task past the gate, by the `__call__` of its own base class."""
        return super().__call__(**params)

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """As Celery's; what a node returns to Celery is stored nowhere, because results travel by reference."""
        if "headgate" in (options.get("headers") or ()):
            options.setdefault("ignore_result", True)
        return super().apply_async(args, kwargs, *more, **options)

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's, but a node is retried by the gate: the same message, later, one priority lower.

        The node fails for good when its task has used up its own `max_retries`, as with Celery.
        """
        if not (getattr(self.request, "headgate", None) and getattr(self.request, "headgate_delivery", None)):
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and self.request.retries >= limit:
            self.request.headgate_gave_up = True
            raise exc or MaxRetriesExceededError(f"{self.name} was retried {self.request.retries} times, its most")
        if eta is not None:
            countdown = (eta - datetime.now(eta.tzinfo)).total_seconds()
        asked = _AskedToRetry(exc, self.default_retry_delay if countdown is None else max(0.0, countdown))
        if throw:
            raise asked
        return asked


class _Execution:
    """One delivery of one node's message, as a pipeline of named steps."""

    def __init__(self, task: NodeTask, request: Any, node: list[Any], delivery: list[Any]) -> None:
        self.task = task
        self.request = request
        self.kernel: Kernel = task.app.headgate_kernel
        self.run_id, self.generation, self.node_id = str(node[0]), int(node[1]), str(node[2])
        self.inc, self.tag, self.number = str(delivery[0]), str(delivery[1]), int(delivery[2])
        self.tenant = str(getattr(request, "tenant", "") or "")
        self.captured: Capture | None = None

    def run(self) -> str:
        row = self._claim()
        if row[0] != "run":
            return self._turn_away(row)
        attempt, spec, verdict, fails = int(row[1]), json.loads(row[2]), str(row[3]), int(row[4])
        grows, source = (str(row[6]), str(row[7])) if len(row) > 6 else ("", "")
        self.request.retries = fails
        # What a message of an item names is its map's task; that of a variant is in the map's spec.
        said = self.expander.template(spec) if verdict and "of" in spec else spec
        if (missing := _task_of(said, verdict)) and registry.get(missing) is None:
            self._hand_back(attempt, missing)
        # After the claim: an epoch is open by then, so the prices are published.
        prices = patiently(lambda: self.kernel.prices.of(self.tenant), for_s=PATIENCE_S)
        extend = partial(self._extend, attempt)
        execution = Execution(
            *(self.run_id, self.generation, self.node_id, attempt, self.tenant, prices, extend, int(row[5])),
            strict=bool(spec.get("strict")),
            cancelled=partial(self._is_told, attempt),
        )
        name = LogName(self.run_id, self.generation, self.node_id, attempt)
        with metering(execution) as usage, about(attempt=attempt), self.kernel.logs.capturing(name) as self.captured:
            started, began = _cpu_clock()(), time.monotonic()
            error: BaseException | None = None
            result, outcome, delay_ms = "", "succeeded", NO_RETRY
            grown: Expansion | None = None
            try:
                with self.kernel.nesting.attempt(self.run_id, self.generation, self.node_id, attempt):
                    value = self._grow(spec, verdict, grows, source) if grows else self._call(spec, verdict)
                if isinstance(value, Graph):
                    value = self.expander.splice(value, self.expander.owner(spec), attempt)
                if isinstance(value, Expansion):
                    grown = value
                else:
                    result = self.kernel.results.encode(value, self.run_id, self.generation, self.node_id, attempt)
            except (_NoInput, NothingGathered) as absent:
                error, outcome = absent, "skipped"
            except SoftTimeLimitExceeded as late:
                error, outcome, delay_ms = late, "timed_out", _backoff_ms(fails + 1, self.kernel.settings.retry_delay_max_s)
            except (NotStorable, NotMappable, GraphInvalid, BudgetRefused, Fatal) as wrong:  # no better the next time
                error, outcome = wrong, "failed"
            except Retryable as again:
                error, outcome = again, "failed"
                delay_ms = _backoff_ms(fails + 1, self.kernel.settings.retry_delay_max_s)
                if again.after_s is not None:
                    delay_ms = int(again.after_s * 1000)
            except _AskedToRetry as asked:
                error, delay_ms = asked.cause or asked, int(asked.countdown_s * 1000)
                outcome = "timed_out" if isinstance(asked.cause, SoftTimeLimitExceeded) else "failed"
            except Exception as failure:  # noqa: BLE001 - whatever the user's function raises is the node's outcome
                error, outcome = failure, "failed"
                if not getattr(self.request, "headgate_gave_up", False):
                    delay_ms = _backoff_ms(fails + 1, self.kernel.settings.retry_delay_max_s)
            if grows:
                usage.close()  # our own work, which nobody pays for
            else:
                usage.close(max(0.0, _cpu_clock()() - started), time.monotonic() - began)
        if grown is not None:
            return self._become(attempt, grown, usage)
        return self._record(attempt, outcome, result, error, usage, delay_ms)

    # -- gate -----------------------------------------------------------------------------------

    def _claim(self) -> list[Any]:
        worker = str(getattr(self.request, "hostname", "") or "")
        return self.kernel.begin(self.run_id, self.generation, self.node_id, self.inc, self.tag, self.number, worker, PATIENCE_S)

    def _turn_away(self, row: list[Any]) -> str:
        """What the gate found instead of work to do; see the table in docs/state-chart.md."""
        kind = row[0]
        if kind == "ended" and row[1] in ("succeeded", "skipped"):
            self._pass_on(set(row[3]))
            return DONE
        self._unlink()
        if kind == "ended" and row[1] in ("failed", "timed_out"):
            raise NodeFailed(message_of(row[2]) or f"the node {self.node_id!r} is {row[1]}")
        if kind in ("refused", "poison"):
            self._publish(set(row[3]) | self.kernel.finish_cascade(self.run_id, self.generation))
            if row[1] == "failed":
                raise NodeFailed(str(row[2]))
            return DONE
        if kind == "stopped" and len(row) > 1:
            self._publish(set(row[3]) | self.kernel.finish_cascade(self.run_id, self.generation))
        if kind in ("ended", "stopped"):
            raise NodeCancelled(f"the node {self.node_id!r} is {row[1] if len(row) > 1 else 'cancelled'}")
        if kind == "later" and len(row) > 2 and row[2]:
            self.kernel.call_agent(f"{self.run_id}.{self.generation}", "gate", self.node_id)
        raise Ignore(f"{self.node_id}: {kind}")

    def _hand_back(self, attempt: int, task: str) -> None:
        """This worker has the node's task, and not the one that it is to run as by a decision: a worker that has it is to be found.

        The execution counts as none. Where no worker of the pool has had the task for too long the node fails.
        """
        node = [self.run_id, self.generation, self.node_id]
        patiently(
            lambda: self.kernel.state.give_up(self.run_id, self.generation, self.node_id, attempt, self.inc, "lack"), for_s=PATIENCE_S
        )
        self._unlink()
        if patiently(lambda: self.kernel.launcher.hand_back(node, [self.inc, self.tag, self.number], task), for_s=PATIENCE_S):
            raise NodeFailed(f"no worker of its pool has the task {task!r}, which {self.node_id!r} is to run as")
        raise Ignore(f"{self.node_id}: handed back for a worker that has the task {task!r}")

    # -- run ------------------------------------------------------------------------------------

    def _call(self, spec: dict[str, Any], verdict: str) -> Any:
        item: Any = MISSING
        if "of" in spec:
            spec, item = self.expander.item(spec)
        chosen = spec.get("variants", {}).get(verdict, {})
        params = {**spec["params"], **chosen.get("params", {})}
        results = self._results(params)
        task = _task_of(spec, verdict)
        definition = registry.get(task)
        if definition is None:
            raise HeadgateError(f"this worker has no task {task!r}; start it with --tasks and its module")
        given = substitute(params, results, item)
        if self.captured is not None and (secrets := secrets_in(given)):
            self.captured.hide(secrets)
        return self._function(definition)(**given)

    def _results(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the results of the nodes that params refer to. Raises _NoInput where one is missing that something counts on."""
        found = list(references(params))
        wanted = list(dict.fromkeys(reference.node for reference in found))
        results = self.kernel.read_results(self.run_id, self.generation, wanted, for_s=PATIENCE_S) if wanted else {}
        for reference in found:
            if reference.bare and results.get(reference.node, MISSING) is MISSING:
                raise _NoInput(f"its parent {reference.node!r} has no result")
        return results

    # -- grow -----------------------------------------------------------------------------------

    @property
    def expander(self) -> Expander:
        """What reads and gathers for this node."""
        return Expander(self.kernel, self.run_id, self.generation, self.node_id, PATIENCE_S)

    def _grow(self, spec: dict[str, Any], verdict: str, grows: str, source: str) -> Any:
        """Return what the node becomes, or what that came to; of a map without items an empty list."""
        if grows == "gather":
            return self.expander.gather(source)
        if source:
            return self.expander.resplice(source, self.expander.owner(spec))
        grown = self.expander.items(spec, self._results({"map": spec["map"]["list"]}), verdict)
        return grown if grown.rows else []

    def _become(self, attempt: int, grown: Expansion, usage: Usage) -> str:
        """Bring the nodes that this one becomes, and publish what is due of them; nothing follows from this message."""
        self._unlink()
        cats = write_cats(usage.by_category())
        version, lines = usage.execution.price_table.version, write_lines(usage.lines)
        spent = Spent(self.run_id, self.generation, self.node_id, attempt, cats, version)
        name = self.run_id, self.generation, self.node_id, attempt, self.inc
        reply: list[Any] = []
        try:
            for first in range(0, len(grown.rows), ROWS_MAX):
                piece = grown.rows[first : first + ROWS_MAX]
                call = partial(self.kernel.state.expand, *name, grown.told(piece), first, piece, grown.carried(piece), cats, version, lines)
                reply = patiently(call, for_s=PATIENCE_S)
                if reply[0] in ("fenced", "clash"):
                    break
                self._publish(reply[2:])
                if reply[0] == "stopped":
                    break
        except SoftTimeLimitExceeded as late:
            return self._record(attempt, "timed_out", "", late, usage, _backoff_ms(1, self.kernel.settings.retry_delay_max_s))
        if reply[0] == "clash":
            taken = Fatal(f"it becomes a node {reply[1]!r}, and the run has another one of that id; give that one another id")
            return self._record(attempt, "failed", "", taken, usage, NO_RETRY)
        if reply[0] == "fenced":
            patiently(lambda: self.kernel.settle(replace(spent, lines=lines), "fenced"), for_s=PATIENCE_S)
            raise Ignore(f"{self.node_id}: attempt {attempt} was superseded")
        self.request.headgate_spent = spent
        if reply[1]:
            self._publish(self.kernel.finish_cascade(self.run_id, self.generation))
        if reply[0] == "stopped":
            raise NodeCancelled(f"the node {self.node_id!r} was cancelled while it ran")
        return DONE

    def _function(self, definition: TaskDefinition) -> Callable[..., Any]:
        if definition.adopted is not None:
            return partial(self._call_adopted, definition.name)
        if definition.is_async:
            return lambda **params: asyncio.run(definition.function(**params))
        return definition.function

    def _call_adopted(self, name: str, /, **params: Any) -> Any:
        """Call an adopted task as Celery would: through its own base class, and with this request."""
        if name == self.task.name:
            return self.task.headgate_call(**params)
        task = self.task.app.tasks[name]
        task.request_stack.push(self.request)
        try:
            return task.headgate_call(**params)
        finally:
            task.request_stack.pop()

    def _extend(self, attempt: int, cats: str) -> None:
        """Have what this execution uses by now covered. Raises BudgetRefused, and Unavailable where Redis stays away."""
        reply = patiently(
            lambda: self.kernel.state.extend(self.run_id, self.generation, self.node_id, attempt, self.inc, cats), for_s=PATIENCE_S
        )
        if reply[0] == "refused":
            whose = "the run has" if reply[1] == "run_budget" else f"tenant {self.tenant!r} has"
            raise BudgetRefused(
                f"{whose} {reply[3]} of {reply[2]} micros promised, and {self.node_id!r} needs more than that leaves",
                limit=int(reply[2]),
                current=int(reply[3]),
            )

    def _is_told(self, attempt: int) -> bool:
        """Say whether this execution should stop. While Redis is away nobody knows better."""
        try:
            return self.kernel.state.told(self.run_id, self.generation, self.node_id, attempt, self.inc) != ""
        except HeadgateError:
            return False

    # -- record ---------------------------------------------------------------------------------

    def _record(self, attempt: int, outcome: str, result: str, error: BaseException | None, usage: Usage, delay_ms: int) -> str:
        cats = write_cats(usage.by_category())
        version, lines = usage.execution.price_table.version, write_lines(usage.lines)
        spent = Spent(self.run_id, self.generation, self.node_id, attempt, cats, version)
        fault = str(error) if outcome == "skipped" else describe(error) if error is not None else ""
        reply = patiently(
            lambda: self.kernel.state.finish(
                self.run_id, self.generation, self.node_id, attempt, self.inc, outcome, result, fault, cats, delay_ms, version, lines
            ),
            for_s=PATIENCE_S,
        )
        if reply[0] == "fenced":
            self._unlink()
            # Nobody else knows what this attempt used: the sweeper settles open executions only.
            patiently(lambda: self.kernel.settle(replace(spent, lines=lines), "fenced"), for_s=PATIENCE_S)
            raise Ignore(f"{self.node_id}: attempt {attempt} was superseded")
        self.request.headgate_spent = spent
        if reply[0] == "retry":
            self._unlink()
            raise Retry(f"attempt {attempt} failed", exc=error if isinstance(error, Exception) else None, when=int(reply[1]) / 1000)
        due = set(reply[2:])
        if reply[1]:
            due |= self.kernel.finish_cascade(self.run_id, self.generation)
        if reply[0] == "done" and outcome in ("succeeded", "skipped"):
            self._pass_on(due)
            return DONE
        self._unlink()
        self._publish(due)
        if reply[0] == "stopped":
            raise NodeCancelled(f"the node {self.node_id!r} was cancelled while it ran")
        assert error is not None
        raise error

    # -- what comes next ------------------------------------------------------------------------

    def _pass_on(self, due: set[str]) -> None:
        """Leave to Celery's chain and chord what they carry; publish the rest."""
        from orchestrator import canvas

        carried = canvas.carried(self.request)
        self.request.headgate_due = due & carried
        self._publish(due - carried)

    def _publish(self, due: Collection[str]) -> None:
        if due:
            self.kernel.launcher.publish(self.run_id, self.generation, self.tenant, due)

    def _unlink(self) -> None:
        """Nothing follows from this message: Celery publishes no next step and counts no chord part."""
        self.request.chain = None
        self.request.chord = None
        self.request.callbacks = None
        self.request.errbacks = None


class _NoInput(Exception):
    """A bare reference to a parent without a result: the (optional) node is skipped with it."""


def _task_of(spec: dict[str, Any], verdict: str) -> str:
    """Return the name of the task that a node is to run as; '' of an item of a map, whose template has it."""
    return str(spec.get("variants", {}).get(verdict, {}).get("task") or spec.get("task", ""))


def describe(error: BaseException) -> str:
    """Return an error as JSON: type, message, and the end of its traceback; whatever its text is, or when it has none."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a user's class, and the node has failed already
        message = "(an error that cannot say what it is)"
    text = "".join(traceback.format_exception(error))
    return json.dumps(
        {"type": type(error).__name__, "message": _clean(message)[:MESSAGE_CHARS], "traceback": _clean(text)[-TRACEBACK_CHARS:]}
    )


def _clean(text: str) -> str:
    """Return `text` with what no encoding can carry replaced."""
    return text.encode(errors="replace").decode()


def message_of(fault: str) -> str:
    """Return type and message of an error as `describe` wrote it; '' of none."""
    found = json.loads(fault) if fault else {}
    return f"{found.get('type', 'Error')}: {found.get('message', '')}" if found else ""


def _backoff_ms(failures: int, longest_s: float) -> int:
    """Delay before the next attempt: min(longest, 2^n s), with jitter between half of it and the whole."""
    return int(min(longest_s, 2.0**failures) * random.uniform(0.5, 1.0) * 1000)


def _cpu_clock() -> Callable[[], float]:
    """CPU seconds of the process where it runs one task at a time, else of the thread."""
    return time.thread_time if current_process().name == "MainProcess" else time.process_time

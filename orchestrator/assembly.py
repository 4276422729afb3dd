"""How a Celery app of Headgate is put together: for workers with every task, for producers with none."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, wraps
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from celery import Celery, Task
from celery.app.autoretry import add_autoretry_behaviour
from celery.signals import beat_init, celeryd_init

from cost import middleware
from cost.install import install as give_budgets
from cost.task_ledger import Terms
from orchestrator.auditor import Auditor
from orchestrator.beat import end_between_ticks
from orchestrator.collector import Collector
from orchestrator.govern import Governor
from orchestrator.kernel import Kernel
from orchestrator.loading import ROOT, load_by_path
from orchestrator.log_context import of_process
from orchestrator.node_task import NodeTask
from orchestrator.notify import Notifier
from orchestrator.ordinary import task_ledger
from orchestrator.registry import TaskDefinition, registry
from orchestrator.settings import Settings
from orchestrator.settlement import NodeSettlement
from orchestrator.shown import Shown
from orchestrator.store.engine import open_engine
from orchestrator.sweeper import Sweeper
from tenancy.transport import channel

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.artifacts.exporter import Exporter
    from orchestrator.reports.reporter import Reporter
    from orchestrator.schedules.ticker import Ticker

CONFIG = "headgate_celeryconfig"
"""Our celeryconfig.py under a name of its own: every Celery project has one already."""

_numbers = itertools.count(1)


class HeadgateApp(Celery):
    """Celery with the kernel and the sweeper at hand, over the same settings."""

    headgate_settings: Settings
    headgate_terms: Terms

    def _engine(self) -> Engine:
        """An engine on the record, for one of what follows."""
        return open_engine(self.headgate_settings.resolved_database_url())

    @cached_property
    def headgate_kernel(self) -> Kernel:
        """The kernel of this app."""
        return Kernel(self, self.headgate_settings)

    @cached_property
    def headgate_sweeper(self) -> Sweeper:
        """The sweeper over this app's kernel and database."""
        return Sweeper(self.headgate_kernel, self._engine())

    @cached_property
    def headgate_governor(self) -> Governor:
        """The cost agent, over the same."""
        return Governor(self.headgate_kernel, self._engine())

    @cached_property
    def headgate_shown(self) -> Shown:
        """What Celery's result backend says of nodes, over the same."""
        return Shown(self._engine())

    @cached_property
    def headgate_collector(self) -> Collector:
        """What removes results that nobody needs any more, over the same."""
        return Collector(self.headgate_kernel.results.objects, self._engine(), self.headgate_settings.result_ttl_s)

    @cached_property
    def headgate_exporter(self) -> Exporter:
        """What writes artifacts about runs that have ended, over the same."""
        from orchestrator.artifacts.exporter import Exporter  # which no producer's app needs

        return Exporter(self.headgate_kernel.link, self._engine(), self.headgate_settings)

    @cached_property
    def headgate_reporter(self) -> Reporter:
        """What makes reports, over the same."""
        from orchestrator.reports.reporter import Reporter  # which no producer's app needs

        return Reporter(self.headgate_kernel.link, self._engine(), self.headgate_settings)

    @cached_property
    def headgate_notifier(self) -> Notifier:
        """What delivers notifications, over the same."""
        return Notifier(self.headgate_kernel.link, self._engine(), self.headgate_settings)

    @cached_property
    def headgate_ticker(self) -> Ticker:
        """What runs schedules, over the same."""
        from orchestrator.schedules.ticker import Ticker  # it submits as a client does, which no producer's app needs

        return Ticker(self.headgate_kernel, self._engine())

    @cached_property
    def headgate_auditor(self) -> Auditor:
        """What compares counters with the ledger, over the same."""
        settings = self.headgate_settings
        return Auditor(self.headgate_kernel.link, self._engine(), settings.audit_interval_s)


def producer_app(settings: Settings) -> HeadgateApp:
    """Return an app that publishes nodes to the stack of `settings`; it knows no task and does not become the current app.

    Raises Unavailable when no stack runs there.
    """
    channel.install()
    made = HeadgateApp("headgate-producer", set_as_current=False)
    made.headgate_settings = settings
    with settings.in_force():
        made.config_from_object(load_by_path(f"{CONFIG}_{next(_numbers)}", ROOT / "celeryconfig.py"))
    return made


def make_app() -> HeadgateApp:
    """Return the app of workers, configured from celeryconfig.py, with every known task registered as a node."""
    from orchestrator.log_format import dress_celery  # structlog is for processes that write logs, which producers are not

    channel.install()
    made = HeadgateApp("headgate", set_as_current=True)
    made.headgate_settings = Settings.load()
    made.config_from_object(load_by_path(CONFIG, ROOT / "celeryconfig.py"))
    dress_celery(made.headgate_settings.log_format)
    # A message of no node that names a tenant pays as that tenant, by what its task declares; one that names none is free.
    ordinary: dict[str, int] = {}
    give_budgets(made, task_ledger(made.headgate_settings))
    made.headgate_terms = replace(made.headgate_terms, estimates=ordinary)

    def know(definition: TaskDefinition) -> None:
        _register(made, definition)
        ordinary[definition.name] = sum(definition.estimate.values())

    registry.subscribe(know)
    middleware.connect(NodeSettlement(lambda: made.headgate_kernel))
    celeryd_init.connect(_introduce, weak=False)
    beat_init.connect(end_between_ticks, weak=False)
    return made


def _register(made: HeadgateApp, definition: TaskDefinition) -> None:
    """Make a definition a Celery task: gated when its message is a node's, stock otherwise."""
    from orchestrator.request import request_of  # what a worker is made of, which producers do without

    given: dict[str, Any] = {"app": made, "name": definition.name, "abstract": False, "Request": request_of(Task.Request)}
    if definition.adopted is None:
        function = definition.function
        # Not by `Celery.task`, which writes a function of the same name and so takes no lambda.
        given |= {"run": staticmethod(_ordinary(definition)), "__module__": function.__module__, "__doc__": function.__doc__}
        made.tasks.pop(definition.name, None)
        made.register_task(type(definition.name, (NodeTask,), given)())
        return
    original = definition.adopted
    original = original._get_current_object() if hasattr(original, "_get_current_object") else original
    # Its own app stands in the class that Celery made for it.
    given |= {"__module__": original.__module__, "Request": request_of(original.Request)}
    adopted = type(original.__name__, (NodeTask, type(original)), given)()
    add_autoretry_behaviour(adopted)
    made.tasks.pop(definition.name, None)
    made.register_task(adopted)


def _ordinary(definition: TaskDefinition) -> Callable[..., Any]:
    """What an ordinary message of the task runs."""
    if not definition.is_async:
        return definition.function

    @wraps(definition.function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(definition.function(*args, **kwargs))

    return run


def _introduce(sender: Any = None, **_: Any) -> None:
    """What this worker says of itself when it enrolls."""
    names = registry.names()
    of_process(service="worker", worker=str(sender))
    channel.WORKER_INFO.update(
        name=str(sender),
        host=socket.gethostname(),
        pid=os.getpid(),
        version=_version(),
        tasks=list(names),
        limits={name: [limit.document() for limit in limits] for name in names if (limits := registry.limits_of(name))},
        expected_ms={name: ms for name in names if (ms := _expected_ms(name))},
    )


def _version() -> str:
    settings = Settings.load()
    return f"headgate {version('headgate')}" + (f", {settings.release}" if settings.release else "")


def _expected_ms(name: str) -> int:
    definition = registry.get(name)
    return max(1, round(definition.expected_s * 1000)) if definition is not None and definition.expected_s else 0

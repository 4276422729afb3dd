"""The kernel as a worker or a producer holds it: state, results, prices and the launcher over one link."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from cost.middleware import Spent
from cost.price_book import PriceBook
from orchestrator import keys
from orchestrator.backpressure import Backpressure
from orchestrator.objects import open_objects
from orchestrator.patience import patiently
from orchestrator.results import ResultStore
from orchestrator.settings import Settings
from orchestrator.state import State
from tenancy.link import Link
from tenancy.queues import SYSTEM_QUEUE

if TYPE_CHECKING:
    from celery import Celery

    from orchestrator.launcher import Launcher

ADMIT = "headgate.admit"
"""The system task that lets waiting runs in."""

GOVERN = "headgate.govern"
"""The system task in which the cost agent decides."""

log = logging.getLogger(__name__)


class Kernel:
    """What the scripts' callers share; one for each app."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.link = Link(settings.resolved_client_url())
        rules = Backpressure(settings.backlog_per_slot, settings.park_at_percent, settings.release_below_percent)
        patience = [math.ceil(seconds * 1000) for seconds in (settings.recorder_lag_limit_s, settings.refusal_wait_s)]
        self.state = State(self.link, rules, *patience)
        self.results = ResultStore(open_objects(settings.resolved_results_url()), settings.result_inline_bytes, settings.result_ttl_s)
        self.prices = PriceBook(self.link)

    @cached_property
    def launcher(self) -> Launcher:
        """Publishes nodes that are due."""
        from orchestrator.launcher import Launcher

        return Launcher(self)

    def read_results(self, run_id: str, generation: int, nodes: Iterable[str], *, for_s: float) -> dict[str, Any]:
        """Return the results of those of `nodes` that have one, waiting up to `for_s` seconds for a Redis that is away.

        Raises Unavailable.
        """
        wanted = list(nodes)
        texts = patiently(lambda: self.link.read("HMGET", keys.of_run("result", f"{run_id}.{generation}"), *wanted), for_s=for_s)
        return self.results.decode_all(dict(zip(wanted, texts, strict=True)))

    def settle(self, spent: Spent, by: str = "signal") -> None:
        """Settle one execution. Raises Unavailable; a conflict is a fault of ours and is raised as ValueError."""
        execution = spent.run_id, spent.generation, spent.node_id, spent.attempt
        answer, may_start, entered = self.state.charge(*execution, spent.cats, by, spent.price_version, spent.lines)
        if may_start:
            self.call_admission()
        if entered:
            self.call_agent(spent.run_id, spent.generation, "level", ".".join(map(str, execution)))
        if answer == "conflict":
            raise ValueError(f"{spent.run_id}.{spent.node_id} attempt {spent.attempt} was settled before with another amount")

    def call_admission(self) -> None:
        """Have some worker let waiting runs in at once. When the message is lost, the next sweep does it."""
        try:
            # Whoever takes it later than the sweep comes too late to be of use.
            self.app.send_task(ADMIT, queue=SYSTEM_QUEUE, ignore_result=True, expires=2 * self.settings.sweep_interval_s, retry=False)
        except (KombuError, RedisError) as error:
            log.warning("admission was not called: %s", error)

    def call_agent(self, run_id: str, generation: int, trigger: str, cause: str) -> None:
        """Have some worker decide on the run's tenant at once. When the message is lost, beat's next one does it.

        trigger: gate (the money does not cover the node `cause`), or level (which the execution `cause` made it enter).
        """
        told = {"args": [f"{run_id}.{generation}", trigger, cause], "queue": SYSTEM_QUEUE, "ignore_result": True, "retry": False}
        try:
            self.app.send_task(GOVERN, **told, expires=2 * self.settings.agent_interval_s)
        except (KombuError, RedisError) as error:
            log.warning("the cost agent was not called: %s", error)

    def finish_cascade(self, run_id: str, generation: int) -> set[str]:
        """Write every fate that is sealed: of descendants, and of what a failure stopped. Return the nodes that became due by it."""
        due: set[str] = set()
        unwritten = 1
        while unwritten == 1:
            unwritten, *found = self.state.cascade(run_id, generation)
            due.update(found)
        if unwritten:
            self.launcher.revoke_rest(run_id, generation)
        return due

"""The kernel as a worker or a producer holds it: state, results, prices and the launcher over one link."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from cost.middleware import BY, Spent
from cost.price_book import PriceBook
from orchestrator import keys
from orchestrator.backpressure import Backpressure
from orchestrator.logs.capture import Logs
from orchestrator.logs.spool import Spool
from orchestrator.patience import patiently
from orchestrator.results import result_store
from orchestrator.riders import Riders
from orchestrator.settings import Settings
from orchestrator.state import Charge, Charged, State
from orchestrator.store.engine import open_engine
from orchestrator.trace.nesting import Nesting
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
        self.results = result_store(settings)
        self.prices = PriceBook(self.link)

    @cached_property
    def riders(self) -> Riders:
        """Settlements that wait for a command of this process."""
        return Riders(self.settle)

    @cached_property
    def logs(self) -> Logs:
        """The logs of the nodes that run in this process."""
        return Logs(Spool(self.link, self.settings.node_log_bytes), self.results.objects, self.settings.node_log_bytes)

    @cached_property
    def nesting(self) -> Nesting:
        """What puts spans of task code under those of their attempts."""
        return Nesting(lambda: open_engine(self.settings.resolved_database_url()))

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
        self._settled(spent, self.state.charge(*_charge(spent, by)))

    def _settled(self, spent: Spent, charged: Charged) -> None:
        if charged.may_start:
            self.call_admission()
        if charged.entered:
            rg = f"{spent.run_id}.{spent.generation}"
            self.call_agent(rg, "level", f"{rg}.{spent.node_id}.{spent.attempt}")
        if charged.answer == "conflict":
            raise ValueError(f"{spent.run_id}.{spent.node_id} attempt {spent.attempt} was settled before with another amount")

    def begin(self, run_id: str, generation: int, node: str, inc: str, tag: str, number: int, worker: str, for_s: float) -> list[Any]:
        """Claim a node, with the settlements of this process that wait for a ride; tries for so long where Redis is away.

        Returns a row of the gate table. Raises Unavailable; what rode along is then left to the sweeper.
        """
        riders = self.riders.take()
        charges = [_charge(spent, BY) for spent in riders]
        answers, row = patiently(
            lambda: self.state.charge_and_begin(charges, run_id, generation, node, inc, tag, number, worker), for_s=for_s
        )
        for spent, charged in zip(riders, answers, strict=True):
            try:
                self._settled(spent, charged)
            except ValueError:
                log.exception("a settlement was refused")
        return row

    def call_admission(self) -> None:
        """Have some worker let waiting runs in at once. When the message is lost, the next sweep does it."""
        try:
            # Whoever takes it later than the sweep comes too late to be of use.
            self.app.send_task(ADMIT, queue=SYSTEM_QUEUE, ignore_result=True, expires=2 * self.settings.sweep_interval_s, retry=False)
        except (KombuError, RedisError) as error:
            log.warning("admission was not called: %s", error)

    def call_agent(self, run: str, trigger: str, cause: str, tenant: str = "") -> None:
        """Have some worker decide on a tenant at once, that of a run (`{run}.{generation}`) or the one that is named.

        trigger: gate (the money does not cover the node `cause`), or level (which the execution or change `cause` made it enter). When the
        message is lost, beat's next one does it.
        """
        told = {"args": [run, trigger, cause, *([tenant] if tenant else [])], "queue": SYSTEM_QUEUE, "ignore_result": True, "retry": False}
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


def _charge(spent: Spent, by: str) -> Charge:
    return Charge(spent.run_id, spent.generation, spent.node_id, spent.attempt, spent.cats, by, spent.price_version, spent.lines)

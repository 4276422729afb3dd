"""Graphs, gate and agent over the ledger: every run, node by node, with the time passed in and every step audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cost.agent import Basis, Decision, RunView, TenantView, Trigger, decide
from cost.plan import NodeCost, floor

from .accounts import Request
from .audit import differences
from .entries import Answer, Event, RunKey
from .ledger import Ledger
from .levels import NAMES
from .policy import Policy
from .runs import SimulatedRun

ATTEMPTS = 3


class Simulator:
    """Everything that spends money, as calls. Whoever drives it decides what happens when, and what it costs.

    `agent` False is a world in which the agent is down: nobody decides, and the ledger alone refuses.
    A node may fail `attempts` times.
    Raises AssertionError as soon as a counter is not the sum of its entries.
    """

    def __init__(self, now_ms: int, *, agent: bool = True, audited: bool = True, attempts: int = ATTEMPTS) -> None:
        self.now_ms = now_ms
        self.agent = agent
        self.attempts = attempts
        self.audited = audited
        self.ledger = Ledger()
        self.runs: dict[RunKey, SimulatedRun] = {}
        self.decisions: list[tuple[RunKey, Trigger, Decision]] = []
        self.events: list[Event] = []

    def policy(self, tenant: str, policy: Policy) -> None:
        """Open a tenant or change its policy."""
        self.heard(self.ledger.set_policy(tenant, policy, self.now_ms))

    def submit(self, tenant: str, run: str, nodes: Sequence[NodeCost], budget: int | None = None) -> str:
        """Ask for admission: admitted, waiting or refused. An admitted run is planned down before its first node."""
        key = RunKey(run)
        simulated = SimulatedRun.of(key, tenant, nodes, strict=self.ledger.accounts[tenant].policy.strict)
        costs = [node.chosen for node in simulated.nodes.values()]
        request = Request(key, floor(costs), sum(node.estimate_micros for node in costs), budget)
        self.runs[key] = simulated
        answer = self.heard(self.ledger.admit(tenant, request, self.now_ms))
        return answer.status

    def start(self, key: RunKey, node: str) -> str:
        """Bring a ready node to the gate: reserved, or refused, in which case the agent is asked at once."""
        run, named = self.runs[key], self.runs[key].nodes[node]
        assert run.status == "running", run.status
        assert node in run.ready, f"{node} waits or has run"
        named.attempt += 1
        named.state = "running"
        answer = self.heard(self.ledger.reserve(run.execution(node), named.chosen.estimate_micros, run.needed, self.now_ms))
        if answer.status == "refused":
            named.state, named.unfunded = "pending", True
            named.attempt -= 1
            self.decide(key, "gate")
        return answer.status

    def charge(self, key: RunKey, node: str, to: int) -> str:
        """A running node has used `to` micros by now: extended, same, or refused, after which it has to stop."""
        return self.heard(self.ledger.extend(self.runs[key].execution(node), to, self.now_ms)).status

    def finish(self, key: RunKey, node: str, cats: Mapping[str, int], *, succeeded: bool = True) -> str:
        """An execution ended and its signal settles it; a failed node is pending again, until its attempts are used up."""
        return self._ended(key, node, cats, succeeded=succeeded)

    def lose(self, key: RunKey, node: str) -> str:
        """The worker of a running node is gone: its execution expires, and the node is pending again."""
        return self._ended(key, node, None, succeeded=False)

    def late(self, key: RunKey, node: str, attempt: int, cats: Mapping[str, int]) -> str:
        """What an execution that was lost, or was settled before, has to say after all."""
        run = self.runs[key]
        execution = run.execution(node)._replace(attempt=attempt)
        return self.heard(self.ledger.settle(execution, cats, unfinished=run.unfinished, now_ms=self.now_ms)).status

    def beat(self) -> None:
        """The agent's round: midnight where it has come, and a decision on every run with pending nodes."""
        for tenant in self.ledger.accounts:
            self.heard(self.ledger.roll_over(tenant, self.now_ms))
        for key, run in list(self.runs.items()):
            if run.status == "running" and run.any_pending:
                self.decide(key, "beat")

    def decide(self, key: RunKey, trigger: Trigger) -> Decision | None:
        """Ask the agent about a run and do what it says."""
        run = self.runs[key]
        if not self.agent or run.status != "running":
            return None
        tenant = self.view(key)
        decision = decide(tenant, self.run_view(key), trigger)
        self.decisions.append((key, trigger, decision))
        if decision.action != "continue" and not tenant.observe:
            run.basis = tenant.basis
            self._apply(key, decision)
        return decision

    def view(self, key: RunKey) -> TenantView:
        """What the agent sees of a run's tenant."""
        tenant = self.runs[key].tenant
        account = self.ledger.accounts[tenant]
        period, policy = account.tightest, account.policy
        active = [each for each, run in self.runs.items() if run.tenant == tenant and run.status == "running"]
        book = account.book(period)
        others = [self.run_view(each) for each in active if each != key]
        elsewhere = book.settled - sum(self.ledger.purses[each].spent_in[period] for each in active)
        return TenantView(
            limit=account.limit(period),
            committed=book.committed,
            elsewhere=elsewhere,
            others=sum(each.projected for each in others),
            others_likely=sum(each.likely_total for each in others),
            active=len(active),
            running=account.running,
            max_runs=policy.max_runs,
            waiting=len(account.line),
            basis=Basis(account.day, policy.limit_day, policy.limit_month, ("HEALTHY", *NAMES).index(account.level)),
            levels=policy.levels,
            budget=policy.levels[1],
            concurrency=policy.concurrency,
            on_floor=policy.on_floor,
            observe=policy.enforcement == "observe",
        )

    def run_view(self, key: RunKey) -> RunView:
        """What the agent sees of a run."""
        run, purse = self.runs[key], self.ledger.purses[key]
        account = self.ledger.accounts[run.tenant]
        return RunView(
            run=key.run,
            spent=purse.spent,
            before=purse.spent - purse.spent_in[account.tightest],
            hold=purse.hold,
            reserved=purse.reserved,
            estimate=run.estimate,
            finished=run.finished,
            room=account.room if purse.room is None else min(account.room, purse.room),
            pending=run.pending,
            any_pending=run.any_pending,
            current=run.current,
            basis=run.basis,
            running=run.running,
        )

    def heard(self, answer: Answer) -> Answer:
        """Take in what a transition told; a level that was entered, and an admission, are the agent's business at once."""
        self.check()
        self.events.extend(answer.events)
        for event in answer.events:
            key = RunKey(event.run)
            if event.type == "run.refused":
                self.runs[key].status = "refused"
            elif event.type == "run.admitted":
                self.runs[key].status = "running"
                if int(event.detail["hold"]) < int(event.detail["estimate"]):
                    self.decide(key, "admission")
                self._end(self.runs[key])
            elif event.type == "level.entered":
                for other, run in list(self.runs.items()):
                    if run.tenant == event.tenant and run.status == "running" and run.any_pending:
                        self.decide(other, "level")
        return answer

    def _ended(self, key: RunKey, node: str, cats: Mapping[str, int] | None, *, succeeded: bool) -> str:
        run, named = self.runs[key], self.runs[key].nodes[node]
        assert named.state == "running", f"{node} does not run"
        if succeeded:
            named.state = "succeeded"
        elif run.status == "terminated_by_cost" or any(each.state == "failed" for each in run.nodes.values()):
            named.state = "cancelled"
        elif named.attempt < self.attempts:
            named.state = "pending"
        else:
            named.state = "failed" if named.declared.required else "skipped"
        if named.state == "failed":
            self._cancel(run)
        needed, unfinished = run.needed, run.unfinished
        if cats is None:
            answer = self.ledger.expire(run.execution(node), needed=needed, unfinished=unfinished, now_ms=self.now_ms)
        else:
            answer = self.ledger.settle(run.execution(node), cats, needed=needed, unfinished=unfinished, now_ms=self.now_ms)
        self.heard(answer)
        self._end(run)
        if run.status == "running" and any(each.unfunded and each.state == "pending" for each in run.nodes.values()):
            self.decide(key, "gate")
        return answer.status

    def _apply(self, key: RunKey, decision: Decision) -> None:
        run = self.runs[key]
        if decision.action == "terminate":
            self._cancel(run)
            run.status = "terminated_by_cost"
        elif decision.plan:
            for change in decision.plan.modifications:
                run.nodes[change.node].choose(change.change)
            self.heard(self.ledger.verdict(key, decision.left, self.now_ms, raised=decision.action == "restore"))
        self._end(run)

    def _cancel(self, run: SimulatedRun) -> None:
        for node in run.nodes.values():
            if node.state == "pending":
                node.state = "cancelled"

    def _end(self, run: SimulatedRun) -> None:
        if run.unfinished or self.ledger.purses[run.key].ended:
            return
        if run.status == "running":
            failed = any(node.state == "failed" for node in run.nodes.values())
            run.status = "failed" if failed else "degraded" if run.given_up else "succeeded"
        self.heard(self.ledger.end_run(run.key, self.now_ms))

    def check(self) -> None:
        """Assert what holds after every step."""
        if self.audited:
            wrong = differences(self.ledger)
            assert not wrong, "\n".join(wrong)

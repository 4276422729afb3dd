"""Admission: who may run, what is held for it, who waits in line, and what becomes of a hold."""

from __future__ import annotations

from cost.money import check_micros

from .accounts import Account, Purse, Request
from .books import Books, Refusal, checked_request
from .entries import Answer, Execution, RunKey


class Admission(Books):
    """The transitions of whole runs."""

    def admit(self, tenant: str, request: Request, now_ms: int) -> Answer:
        """Hold min(estimate, room, limit of the run) if the floor fits and a place is free.

        Answers `admitted` with the hold (less than the estimate: plan down before the first node starts), `waiting`
        with the place in line from 1, or `refused` with the reason: suspended, run_budget, budget, exceeded or runs.
        Asking again answers again; a refused run may be asked for anew. Raises ValueError for senseless amounts.
        """
        checked_request(request)
        account = self._open(tenant, now_ms)
        if request.key in self.purses:
            return self._answer(account, "admitted", micros=self.purses[request.key].hold)
        if request in account.line:
            return self._answer(account, "waiting", micros=account.line.index(request) + 1)
        never = self._never(account, request)
        refusal = never or self._not_now(account, request)
        if refusal and account.policy.enforcement == "observe":
            self._tell(account, "observed", request.key.run, reason=refusal[0], limit=refusal[1], current=refusal[2])
            refusal = None
        elif never is None and (account.line or (refusal and self._waits(account, refusal[0]))):
            if account.policy.on_runs_limit == "reject" and (refusal is None or refusal[0] == "runs"):
                refusal = refusal or ("runs", account.policy.max_runs, account.running)
                return self._refused(account, "run.refused", request.key.run, refusal, request.floor)
            account.line.append(request)
            self._tell(account, "run.waiting", request.key.run, place=len(account.line))
            return self._answer(account, "waiting", micros=len(account.line))
        if refusal:
            return self._refused(account, "run.refused", request.key.run, refusal, request.floor)
        hold = self._hold(account, request)
        return self._answer(account, "admitted", micros=hold)

    def verdict(self, key: RunKey, left: int, now_ms: int, *, raised: bool = False) -> Answer:
        """The plan of a run became cheaper: what is pending now costs `left`, and the hold falls to that if it is more.

        Answers `released` with the micros that are free again. Never falls below what required nodes need. A plan that was
        `raised` is held as far as there is room: `held`, with the micros that were added.
        """
        check_micros(left, "cost of the plan")
        purse = self.purses[key]
        account = self._open(purse.tenant, now_ms)
        if raised:
            room = account.room if purse.room is None else min(account.room, purse.room)
            added = max(0, min(left - purse.hold, room))
            self._held(account, purse, added)
            self._write("hold", account, Execution(*key, "", 0), added, cause="verdict", to_hold=added)
            return self._answer(account, "held", micros=added)
        return self._answer(account, "released", micros=self._release(account, key, max(left, purse.needed), "verdict"))

    def end_run(self, key: RunKey, now_ms: int) -> Answer:
        """The run has no unfinished nodes: its hold is void, its place is free. Again: `same`."""
        purse = self.purses[key]
        account = self._open(purse.tenant, now_ms)
        if purse.ended:
            return self._answer(account, "same")
        released = self._release(account, key, 0, "ended")
        purse.ended, purse.needed = True, 0
        account.running -= 1
        return self._answer(account, "ended", micros=released)

    def leave_line(self, tenant: str, key: RunKey, now_ms: int) -> Answer:
        """A run that waits is cancelled: `left`, or `unknown` if it does not wait."""
        account = self._open(tenant, now_ms)
        waits = [request for request in account.line if request.key == key]
        account.line = [request for request in account.line if request.key != key]
        return self._answer(account, "left" if waits else "unknown")

    def _let_in(self, account: Account) -> None:
        while account.line:
            request = account.line[0]
            refusal = self._never(account, request) or self._not_now(account, request)
            if refusal and self._waits(account, refusal[0]):
                return  # No overtaking: who comes next waits as well.
            account.line.pop(0)
            if refusal:
                self._tell(account, "run.refused", request.key.run, reason=refusal[0], limit=refusal[1], current=refusal[2])
            else:
                self._hold(account, request)

    def _waits(self, account: Account, reason: str) -> bool:
        return reason == "runs" or (account.policy.on_budget_limit == "hold" and reason in ("budget", "exceeded"))

    def _never(self, account: Account, request: Request) -> Refusal | None:
        """What no waiting helps against: reason, limit, what met it."""
        least = request.estimate if self._in_full(account, request) else request.floor
        if account.policy.suspended:
            return "suspended", 0, 0
        if request.budget is not None and least > request.budget:
            return "run_budget", request.budget, least
        lowest = min(account.limit(period) for period in account.periods)
        return ("budget", lowest, least) if least > lowest else None

    def _not_now(self, account: Account, request: Request) -> Refusal | None:
        if account.running >= account.policy.max_runs:
            return "runs", account.policy.max_runs, account.running
        if period := account.exceeded:
            return "exceeded", account.limit(period), account.book(period).committed
        least = request.estimate if self._in_full(account, request) else request.floor
        if least > account.room:
            return "budget", account.limit(account.tightest), account.exposure(account.tightest)
        return None

    def _in_full(self, account: Account, request: Request) -> bool:
        return "full" in (account.policy.admit, request.quality)

    def _hold(self, account: Account, request: Request) -> int:
        wanted = request.estimate
        if account.policy.enforcement == "enforce":
            wanted = min(wanted, account.room, wanted if request.budget is None else request.budget)
        purse = self.purses[request.key] = Purse(account.id, 0, request.budget, request.floor)
        self._held(account, purse, wanted)
        account.running += 1
        self._write("hold", account, Execution(*request.key, "", 0), wanted, cause="admitted", to_hold=wanted)
        self._tell(account, "run.admitted", request.key.run, hold=wanted, estimate=request.estimate, floor=request.floor)
        return wanted

    def _release(self, account: Account, key: RunKey, left: int, cause: str) -> int:
        purse = self.purses[key]
        released = max(0, purse.hold - left)
        if released:
            self._held(account, purse, -released)
            self._write("release", account, Execution(*key, "", 0), released, cause=cause, to_hold=-released)
        return released

"""The rules of money, one method for each transition: what the scripts must do, without Redis and with the time passed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from cost.money import check_micros, normalise_category

from .accounts import Account, Purse, Reservation
from .admission import Admission
from .books import Refusal
from .entries import WASTE, Answer, Execution


class Ledger(Admission):
    """The transitions of executions, and adjustments. Every one may be repeated; amounts are micros, checked at each.

    `needed` is the floor of the run's required nodes that have not started, after the transition (None: as before). A
    node that will be tried again has not started. The caller is the script that changes the node's state, which knows it.
    """

    def reserve(self, execution: Execution, amount: int, needed: int | None, now_ms: int) -> Answer:
        """Before a node starts: move money from its run's hold; an excess must fit. An amount of 0 always does.

        Answers `reserved`, `same`, `conflict` (another amount), `unknown` (no such run, or it has ended), or `refused` with the
        reason budget or run_budget. A refusal is no outcome of the node: it waits for what the agent decides.
        """
        check_micros(amount)
        purse = self.purses.get(execution.key)
        if purse is None:
            return Answer("unknown")
        account = self._open(purse.tenant, now_ms)
        if known := self.reservations.get(execution):
            return self._answer(account, "same" if known.first == amount else "conflict")
        if purse.ended:
            return self._answer(account, "unknown")
        after = purse.needed if needed is None else check_micros(needed, "needed")
        taken, refusal = self._fund(account, purse, execution, amount, after)
        if refusal:
            return self._refused(account, "money.refused", execution.run, refusal)
        purse.needed, purse.open = after, purse.open + 1
        self._held(account, purse, -taken)
        self._reserved(account, purse, account.day, amount)
        self.reservations[execution] = Reservation({account.day: amount}, amount)
        self._write("reserve", account, execution, amount, to_hold=-taken)
        return self._answer(account, "reserved", micros=amount)

    def extend(self, execution: Execution, to: int, now_ms: int) -> Answer:
        """While a node runs: raise its reservation to `to`, from the hold, else from the room; in the period of now.

        Answers `extended` with what was added, `same` (it is that much already), `closed`, `unknown`, or `refused`:
        the node has to stop with a budget error.
        """
        check_micros(to)
        reservation = self.reservations.get(execution)
        if reservation is None:
            return Answer("unknown")
        purse = self.purses[execution.key]
        account = self._open(purse.tenant, now_ms)
        if reservation.state != "open":
            return self._answer(account, "closed")
        more = to - reservation.amount
        if more <= 0:
            return self._answer(account, "same")
        taken, refusal = self._fund(account, purse, execution, more, purse.needed)
        if refusal:
            return self._refused(account, "money.refused", execution.run, refusal)
        self._held(account, purse, -taken)
        self._reserved(account, purse, account.day, more)
        reservation.parts[account.day] = reservation.parts.get(account.day, 0) + more
        self._write("extend", account, execution, more, to_hold=-taken)
        return self._answer(account, "extended", micros=more)

    def settle(
        self,
        execution: Execution,
        cats: Mapping[str, int],
        *,
        needed: int | None = None,
        unfinished: bool,
        price_version: int = 1,
        cause: str = "signal",
        now_ms: int,
    ) -> Answer:
        """Charge an execution, once, by category, in the periods that its money was reserved in.

        What is unspent returns to the hold while the run has unfinished nodes; what is beyond the reservation is taken from the
        hold, and only the rest is new exposure. Answers `settled`, `same`, `conflict`, `waste` (it was void) or `unknown`.
        """
        reservation = self.reservations.get(execution)
        if reservation is None:
            return Answer("unknown")
        cats = read_cats(cats)
        purse = self.purses[execution.key]
        account = self._open(purse.tenant, now_ms)
        if reservation.state in ("settled", "waste"):
            return self._answer(account, "same" if reservation.cats == cats else "conflict")
        total, waste = sum(cats.values()), reservation.state == "void"
        set_aside = 0 if waste else reservation.amount
        to_hold = self._to_hold(purse, set_aside, total, unfinished=unfinished)
        parts = dict.fromkeys(list(reservation.parts)[-1:], 0) if waste else reservation.parts
        if not waste:
            self._close(account, purse, reservation, needed)
        self._held(account, purse, to_hold)
        unwritten, moved = dict(parts), to_hold
        for day, category, amount in spread(cats, parts):
            self._charged(account, day, category, amount, purse, waste=waste)
            released = unwritten.pop(day, 0)
            line = {"released": released, "to_hold": moved}
            why = WASTE if waste else cause
            self._write("settle", account, execution, amount, day=day, category=category, price_version=price_version, cause=why, **line)
            moved = 0
        for day, released in unwritten.items():
            self._write("void", account, execution, released, day=day, cause="unspent", released=released, to_hold=moved)
            moved = 0
        reservation.state, reservation.cats = "waste" if waste else "settled", cats
        reservation.over = max(0, total - set_aside)
        reservation.overshoot = reservation.over + min(0, to_hold)
        if reservation.overshoot:
            self._tell(account, "money.overshoot", execution.run, node=execution.node, amount=reservation.overshoot)
        return self._answer(account, reservation.state, micros=total)

    def void(self, execution: Execution, *, needed: int | None = None, unfinished: bool, cause: str = "signal", now_ms: int) -> Answer:
        """Give a reservation back whole: `void`, `same`, `conflict` (it was charged) or `unknown`."""
        return self._give_back("void", execution, needed, cause, now_ms, unfinished=unfinished)

    def expire(self, execution: Execution, *, needed: int | None = None, unfinished: bool, cause: str = "lease", now_ms: int) -> Answer:
        """As void, for an execution whose lease ended before it told anything; what it tells later is waste."""
        return self._give_back("expire", execution, needed, cause, now_ms, unfinished=unfinished)

    def adjust(
        self,
        adjustment: str,
        tenant: str,
        amount: int,
        category: str,
        *,
        refund: bool,
        cause: str,
        now_ms: int,
        day: str = "",
        execution: Execution | None = None,
        price_version: int = 1,
    ) -> Answer:
        """Correct what was charged, in the day of what is corrected ('': today); refunds free room and refill no hold.

        `adjustment` is its key: the same again is `same`, with other contents `conflict`. Answers `adjusted`, or `refused` with
        the reason too_much where a refund is more than was charged there. A charge is booked whatever the limit says.
        """
        signed = -check_micros(amount) if refund else check_micros(amount)
        account = self._open(tenant, now_ms)
        day, category = day or account.day, normalise_category(category)[0]
        purse = self.purses[execution.key] if execution else None
        if known := self._adjusted.get((tenant, adjustment)):
            same = (known.amount, known.category, known.day) == (signed, category, day)
            return self._answer(account, "same" if same else "conflict")
        charged = account.book(day).categories[category]
        charged = charged if purse is None else min(charged, purse.spent_in[day])
        if refund and amount > charged:
            return self._refused(account, "money.refused", "", ("too_much", charged, amount))
        self._charged(account, day, category, signed, purse)
        line = self._write(
            "adjust",
            account,
            execution or Execution("", 0, "", 0),
            signed,
            day=day,
            category=category,
            price_version=price_version,
            cause=cause,
        )
        self._adjusted[tenant, adjustment] = line
        return self._answer(account, "adjusted", micros=amount)

    def _give_back(
        self, kind: Literal["void", "expire"], execution: Execution, needed: int | None, cause: str, now_ms: int, *, unfinished: bool
    ) -> Answer:
        reservation = self.reservations.get(execution)
        if reservation is None:
            return Answer("unknown")
        purse = self.purses[execution.key]
        account = self._open(purse.tenant, now_ms)
        if reservation.state != "open":
            return self._answer(account, "same" if reservation.state == "void" else "conflict")
        moved = self._to_hold(purse, reservation.amount, 0, unfinished=unfinished)
        self._close(account, purse, reservation, needed)
        self._held(account, purse, moved)
        for day, part in reservation.parts.items():
            self._write(kind, account, execution, part, day=day, cause=cause, released=part, to_hold=moved)
            moved = 0
        reservation.state = "void"
        return self._answer(account, "void", micros=reservation.amount)

    def _fund(self, account: Account, purse: Purse, execution: Execution, amount: int, needed: int) -> tuple[int, Refusal | None]:
        """Return what the hold gives to an amount, and what refuses it: the hold keeps what required nodes need."""
        taken = min(amount, max(0, purse.hold - needed))
        excess, short = amount - taken, max(0, needed - purse.hold)
        if not excess:
            return taken, None
        refusal = None
        if excess > account.room - short:
            refusal = ("budget", account.limit(account.tightest), account.exposure(account.tightest))
        elif purse.room is not None and excess > purse.room - short:
            refusal = ("run_budget", purse.budget or 0, purse.spent + purse.reserved + purse.hold)
        if refusal and account.policy.enforcement == "observe":
            self._tell(account, "observed", execution.run, reason=refusal[0], limit=refusal[1], current=refusal[2])
            return taken, None
        return taken, refusal

    def _to_hold(self, purse: Purse, set_aside: int, total: int, *, unfinished: bool) -> int:
        """What an end moves to the hold: what is unspent, or less than 0, what it cost beyond its reservation."""
        if total > set_aside:
            return -min(total - set_aside, purse.hold)
        return set_aside - total if unfinished and not purse.ended else 0

    def _close(self, account: Account, purse: Purse, reservation: Reservation, needed: int | None) -> None:
        purse.open -= 1
        if needed is not None and not purse.ended:
            purse.needed = check_micros(needed, "needed")
        for day, part in reservation.parts.items():
            self._reserved(account, purse, day, -part)


def read_cats(cats: Mapping[str, int]) -> dict[str, int]:
    """Return micros by known category, in the order of their names, without zeros. Raises ValueError for an amount out of range."""
    known: dict[str, int] = {}
    for name, amount in cats.items():
        category = normalise_category(name)[0]
        known[category] = known.get(category, 0) + check_micros(amount, name)
    check_micros(sum(known.values()), "total")
    return {category: known[category] for category in sorted(known) if known[category]}


def spread(cats: Mapping[str, int], parts: Mapping[str, int]) -> Iterable[tuple[str, str, int]]:
    """Yield (day, category, amount): categories in order fill the parts in order, and the last part takes the rest."""
    days = list(parts.items())
    if not cats:
        yield days[0][0], "other", 0
    day, left = days.pop(0)
    for category, total in cats.items():
        while total > left and days:
            if left:
                yield day, category, left
            total -= left
            day, left = days.pop(0)
        yield day, category, total
        left = max(0, left - total)

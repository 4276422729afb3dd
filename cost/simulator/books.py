"""The frame of every transition: the period of now, entries and events, levels, and who comes in from the line afterwards."""

from __future__ import annotations

from cost.money import check_micros

from .accounts import Account, Purse, Request, Reservation
from .entries import Answer, Entry, Event, Execution, Kind, RunKey
from .periods import day_of, month_of
from .policy import Policy

Refusal = tuple[str, int, int]
"""What stands in the way: a reason, the limit, and what met it."""


class Books:
    """Accounts, purses and reservations with the entries that they are the sums of; transitions are added by subclasses."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.purses: dict[RunKey, Purse] = {}
        self.reservations: dict[Execution, Reservation] = {}
        self.entries: list[Entry] = []
        self._adjusted: dict[tuple[str, str], Entry] = {}
        self._events: list[Event] = []
        self._first = 0

    def set_policy(self, tenant: str, policy: Policy, now_ms: int) -> Answer:
        """Open a tenant, or give it another policy; what is held and reserved stays, whatever the new limit."""
        if tenant not in self.accounts:
            self.accounts[tenant] = Account(tenant, policy, day_of(now_ms))
        account = self._open(tenant, now_ms)
        account.policy = policy
        return self._answer(account, "set")

    def roll_over(self, tenant: str, now_ms: int) -> Answer:
        """Move to the period of now. Every transition does so first; this is for those who wait for midnight."""
        return self._answer(self._open(tenant, now_ms), "rolled")

    def _open(self, tenant: str, now_ms: int) -> Account:
        account = self.accounts[tenant]
        self._events, self._first = [], len(self.entries)
        day = day_of(now_ms)
        if day > account.day:  # A clock that is set back reopens no period.
            account.day = day
            self._tell(account, "period.rolled", day=day, held=account.held, reserved=account.reserved)
        return account

    def _answer(self, account: Account, status: str, micros: int = 0, refusal: Refusal = ("", 0, 0)) -> Answer:
        self._update_levels(account)
        self._let_in(account)
        return Answer(status, micros, *refusal, tuple(self._events), tuple(self.entries[self._first :]))

    def _refused(self, account: Account, type_: str, run: str, refusal: Refusal, micros: int = 0) -> Answer:
        self._tell(account, type_, run, reason=refusal[0], limit=refusal[1], current=refusal[2])
        return self._answer(account, "refused", micros, refusal)

    def _update_levels(self, account: Account) -> None:
        for period in account.periods:
            book, limit = account.book(period), account.limit(period)
            for change in book.latches.update(book.committed, limit, account.policy.levels, account.policy.left_lower):
                kind = "level.entered" if change.entered else "level.left"
                told: dict[str, int | str] = {"period": period, "level": change.level, "entry": change.entry}
                self._events.append(Event(kind, account.id, "", told | {"committed": book.committed, "limit": limit}))

    def _let_in(self, account: Account) -> None:
        """Admission of those who wait; here nobody waits yet."""

    def _tell(self, account: Account, type_: str, run: str = "", **detail: int | str) -> None:
        self._events.append(Event(type_, account.id, run, detail))

    def _write(
        self,
        kind: Kind,
        account: Account,
        execution: Execution,
        amount: int,
        *,
        day: str = "",
        category: str = "",
        price_version: int = 0,
        cause: str = "",
        released: int = 0,
        to_hold: int = 0,
    ) -> Entry:
        self.entries.append(
            Entry(kind, account.id, *execution, category, amount, price_version, day or account.day, cause, released, to_hold)
        )
        return self.entries[-1]

    def _reserved(self, account: Account, purse: Purse, day: str, change: int) -> None:
        """One reservation, in each counter that knows it."""
        account.book(day).reserved += change
        account.book(month_of(day)).reserved += change
        account.reserved += change
        purse.reserved += change

    def _held(self, account: Account, purse: Purse, change: int) -> None:
        purse.hold += change
        account.held += change

    def _charged(self, account: Account, day: str, category: str, amount: int, purse: Purse | None, *, waste: bool = False) -> None:
        """One charge, in each counter that knows it; a refund is a negative one."""
        for period in (day, month_of(day)):
            book = account.book(period)
            book.settled += amount
            book.waste += amount if waste else 0
            book.categories[category] += amount
            if purse:
                purse.spent_in[period] += amount
        if purse:
            purse.spent += amount


def checked_request(request: Request) -> None:
    """Raise ValueError for amounts out of range, or a floor above the estimate."""
    check_micros(request.floor, "floor")
    check_micros(request.estimate, "estimate")
    if request.budget is not None:
        check_micros(request.budget, "limit of the run")
    if request.floor > request.estimate:
        raise ValueError(f"a floor of {request.floor} is above the estimate of {request.estimate}")

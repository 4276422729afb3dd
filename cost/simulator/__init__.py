"""The rules of money as a simulator: the ledger's transitions, graphs that spend by them, and an auditor. No Redis, no clock."""

from cost.agent import Decision, RunView, TenantView, decide

from .accounts import Account, Book, Purse, Request, Reservation
from .audit import differences
from .entries import WASTE, Answer, Entry, Event, Execution, RunKey
from .ledger import Ledger
from .levels import Latches
from .play import Step, play, steps
from .policy import Policy
from .simulator import Simulator

__all__ = [
    "WASTE",
    "Account",
    "Answer",
    "Book",
    "Decision",
    "Entry",
    "Event",
    "Execution",
    "Latches",
    "Ledger",
    "Policy",
    "Purse",
    "Request",
    "Reservation",
    "RunKey",
    "RunView",
    "Simulator",
    "Step",
    "TenantView",
    "decide",
    "differences",
    "play",
    "steps",
]

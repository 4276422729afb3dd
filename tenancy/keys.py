"""Keys of the transport and the epoch; docs/protocol.md says what each holds. The scripts spell them out themselves."""

PREFIX = "hg1:"
"""Begins every key; the number is the version of the protocol."""

EPOCH = "hg1:epoch"
EVENTS = "hg1:events"
INCARNATIONS = "hg1:incarnations"
SERVES = "hg1:serves"
POOLS = "hg1:pools"
MESSAGES = "hg1:msg"
META = "hg1:meta"
DELAYED = "hg1:delayed"
LETTERS = "hg1:letters"
CAPS = "hg1:caps"
RANKS = "hg1:ranks"
PAUSED = "hg1:paused"
STOPPED = "hg1:stopped"
HALTED = "hg1:halted"
LOAD = "hg1:load"
RUNNING = "hg1:running"
LOADING = "hg1:loading"
WAITING = "hg1:waiting"
PARKED_BY = "hg1:parked:by"
DELAYED_BY = "hg1:delayed:by"
BELLS = "hg1:bell:"
QUEUES = "hg1:queue:"


def bell(pool: str) -> str:
    """Doorbell tokens of a pool."""
    return f"hg1:bell:{pool}"


def queue(pool: str, tenant: str, priority: int) -> str:
    """A line of entries `tag:k`; the next one at the right end."""
    return f"hg1:queue:{pool}:{tenant}:{priority}"


def depth(pool: str) -> str:
    """Messages in line by `tenant|priority`."""
    return f"hg1:depth:{pool}"


def ready(pool: str) -> str:
    """Waiting tenants by virtual start time."""
    return f"hg1:ready:{pool}"


def work(pool: str) -> str:
    """Expected ms of what each tenant has in line."""
    return f"hg1:work:{pool}"


def held(scope: str) -> str:
    """Tags held of `tenant:{t}`, `run:{r}` or `limit:{key}`."""
    return f"hg1:held:{scope}"


def slots(pool: str) -> str:
    """Slots that incarnations offer a pool."""
    return f"hg1:slots:{pool}"


def pressure(pool: str) -> str:
    """Whether a pool takes new runs, since when, and how often and how long it did not."""
    return f"hg1:pressure:{pool}"


def served(minute: int) -> str:
    """Slot-ms that each tenant received in a minute (since 1970-01-01 UTC)."""
    return f"hg1:served:{minute}"


def unacked(inc: str) -> str:
    """Tags that an incarnation holds."""
    return f"hg1:unacked:{inc}"


def worker(inc: str) -> str:
    """What an incarnation said of itself, and since when it is enrolled."""
    return f"hg1:worker:{inc}"


def policy(tenant: str) -> str:
    """A tenant's policy numbers, as far as the queue reads them."""
    return f"hg1:tenant:{tenant}"

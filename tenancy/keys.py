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
PAUSED = "hg1:paused"
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


def held(scope: str) -> str:
    """Tags held of `tenant:{t}`, `run:{r}` or `limit:{key}`."""
    return f"hg1:held:{scope}"

"""The recorder's keys in Redis; docs/protocol.md says what they hold."""

EPOCH = "hg1:epoch"
EVENTS = "hg1:events"
RECORDED = "hg1:recorded"
RECORDED_AT = "hg1:recorded:at"
LEASE = "hg1:recorder"
ENDED = "hg1:ended"


def payload(request: str) -> str:
    """The graph of a submission on its way to SQL, kept one hour."""
    return f"hg1:payload:{request}"


def reply(request: str) -> str:
    """The list with the one answer to a request, kept 60 s."""
    return f"hg1:reply:{request}"


def tenant(tenant_id: str) -> str:
    """A tenant's policy numbers and counters."""
    return f"hg1:tenant:{tenant_id}"

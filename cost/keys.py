"""Keys of money; docs/protocol.md says what each holds. `rg` is `{run}.{generation}`."""


def tenant(tenant_id: str) -> str:
    """A tenant's policy numbers and counters."""
    return f"hg1:tenant:{tenant_id}"


SETTLED_BY = "hg1:settled_by"
"""How many executions were settled by whom."""


def spent_in_month(tenant_id: str, month: int) -> str:
    """What a tenant was charged in a month, yyyymm."""
    return f"hg1:spent:{tenant_id}:m{month}"


def spent(tenant_id: str, day: int) -> str:
    """What a tenant was charged on a day (days since 1970-01-01 UTC)."""
    return f"hg1:spent:{tenant_id}:{day}"


def adjusted(tenant_id: str, month: int) -> str:
    """The ids of adjustments in a tenant's books of a month, yyyymm."""
    return f"hg1:adjusted:{tenant_id}:{month}"


def level(tenant_id: str) -> str:
    """The levels that a tenant has entered."""
    return f"hg1:level:{tenant_id}"


def purse(rg: str) -> str:
    """A run's money."""
    return f"hg1:purse:{rg}"


def reservations(rg: str) -> str:
    """A run's executions by `node:attempt`."""
    return f"hg1:res:{rg}"


def open_executions(rg: str) -> str:
    """The executions that are not settled yet."""
    return f"hg1:open:{rg}"


AWAY = "hg1:away"
"""Runs that are paused and have no place, by since when."""

REBUILT = "hg1:rebuilt"
"""`attempts` that were handed out before the last rebuild, at most."""

TASKS = "hg1:tasks"
"""Ordinary Celery tasks with an open execution, by their last sign of life."""


def task(task_id: str) -> str:
    """The claims of an ordinary Celery task."""
    return f"hg1:task:{task_id}"


def task_run(task_id: str) -> str:
    """The `rg` under which an ordinary Celery task has its money."""
    return f"task.{task_id}.0"


PRICES = "hg1:prices"
"""The version of the price table that holds, by tenant."""

EVERYBODY = "*"
"""Whose version holds for a tenant without one of its own; no tenant's id."""


def price_table(version: str) -> str:
    """The prices of a version, in micros by `category/unit`."""
    return f"hg1:pricetable:{version}"

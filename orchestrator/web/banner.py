"""The banner on every page: what is paused, and who is only observed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.store import read
from orchestrator.store.standing import not_enforced
from orchestrator.web.page import Data

NAMED_MAX = 5
"""Scopes and tenants that the banner names; it counts the rest."""


class BannerData(Data):
    """GET /console/banner."""

    what = "banner"

    def reading(self, *_: str) -> Callable[[], Any]:
        """Return what reads it."""
        engine = self.application.engine

        def tell() -> dict[str, Any]:
            pauses = read.pauses(engine)
            lax = not_enforced(engine)
            return {
                "platform": next(
                    ({"by": each.by, "reason": each.reason, "at": each.at} for each in pauses if each.scope == "platform"), None
                ),
                "tenants": _some(sorted(each.scope.partition(":")[2] for each in pauses if each.scope.startswith("tenant:"))),
                "runs": _some(sorted(each.scope.partition(":")[2].partition(".")[0] for each in pauses if each.scope.startswith("run:"))),
                "observed": _some([tenant for tenant, how in lax if how == "observe"]),
                "off": _some([tenant for tenant, how in lax if how == "off"]),
            }

        return tell


def _some(names: list[str]) -> dict[str, Any]:
    return {"names": names[:NAMED_MAX], "count": len(names)}

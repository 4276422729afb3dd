"""A run and its nodes as the plain model has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from cost.memory import Key

Rule = str | int
"""all_succeeded, all_done, or the n of at_least(n)."""

OUTCOMES: Final = ("succeeded", "failed", "timed_out", "skipped", "cancelled", "upstream_failed")


@dataclass(slots=True)
class Lease:
    """The claim of one attempt; it is live while the incarnation is, and holds the tag in this delivery."""

    attempt: int
    inc: str
    tag: str
    delivery: int
    since: int


@dataclass(slots=True)
class NodeState:
    """A node of a run: `state` is pending, due, running or its outcome.

    wait: parents that stand in its way, because they have not ended or have ended badly; of one that counts its parents, those that have
    not ended. ok: parents that succeeded, where `at_least` counts them; taken: one of its parents, if it counts them, was taken.
    not_taken: it was skipped because it is on a branch not taken.
    ctl: amounts by variant ("" without one), required, attempts, next (children), joins (children that count their parents, with
    their rules), least and when (of itself), map and expects of one that grows, and once it does rule, gathers, of and source.
    made: how many nodes it became so far, None of one that has not; bad: its rule cannot be met by them any more. claims: executions begun;
    fails, lost: how they ended; done: the last one that finished. since: when it became due. adopted: the generation that
    ran it. stop: why it is cancelled, if a person cancelled it.
    """

    wait: int
    ctl: dict[str, Any]
    spec: str
    verdict: str
    fragment: str
    state: str = "pending"
    claims: int = 0
    fails: int = 0
    lost: int = 0
    done: int = 0
    lease: Lease | None = None
    lacks: int | None = None
    """since when no worker of its pool has had its task"""
    refused: int | None = None
    """since when the money has not covered it"""
    notbefore: int = 0
    since: int | None = None
    result: str | None = None
    fault: str | None = None
    adopted: int = 0
    ok: int = 0
    taken: bool = False
    not_taken: bool = False
    made: int | None = None
    bad: bool = False
    stop: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in OUTCOMES

    @property
    def waits(self) -> bool:
        """Whether it has not begun (or waits for its next attempt)."""
        return self.state in ("pending", "due")

    @property
    def how(self) -> str:
        """What the end of a node means for its children: succeeded, passed (it does not stand in their way), untaken or bad."""
        if self.state == "succeeded" or self.not_taken:
            return "untaken" if self.not_taken else self.state
        passes = self.state == "skipped" or (not self.ctl["required"] and self.state in ("failed", "timed_out"))
        return "passed" if passes else "bad"

    @property
    def joins(self) -> list[tuple[str, Rule, bool]]:
        """The children that count their parents, with the rule of each, and whether the child became this node."""
        return [(str(join[0]), join[1], len(join) > 2) for join in self.ctl.get("joins", ())]

    @property
    def grows(self) -> list[str]:
        """Of a node that becomes others, what its execution does: ["expand" or "gather", what says what it became]."""
        if self.made is not None:
            return ["expand" if self.made < self.ctl["of"] else "gather", self.ctl.get("source", "")]
        return ["expand", self.ctl.get("source", "")] if "map" in self.ctl or "source" in self.ctl else []


@dataclass(slots=True)
class RunState:
    """A run of one generation: `status` is held, loading, running, cancelling or ended; `left` counts nodes without an outcome.

    stops: the first required node that fails stops it; stopped: why nothing more of it begins. planned: what its floor grew by.
    decisions: how many; mark: action and flags of the last; open, plan: the one that is being applied. terminated: the decision by which it
    ends, whatever but `kept` has not begun; waits: what a decision paused it for (hold, finish).
    grown: whether nodes became others.
    Of one that waits, `why`, `want` (as it was asked for) and `order`. roots: by pool, of a run that is loading.
    """

    run: str
    gen: int
    tenant: str
    graph: str
    total: int
    left: int
    estimate: int
    floor: int
    hold: int
    priority: int
    created: int
    progress: int
    status: str = "loading"
    outcome: str = ""
    reason: str = ""
    why: str = ""
    want: str = ""
    order: int = 0
    roots: dict[str, int] = field(default_factory=dict)
    degraded: bool = False
    grown: bool = False
    required_failed: bool = False
    stops: bool = False
    stopped: str = ""
    decisions: int = 0
    mark: str = ""
    open: str = ""
    plan: str = ""
    terminated: str = ""
    waits: str = ""
    kept: set[str] = field(default_factory=set)
    planned: int = 0
    nodes: dict[str, NodeState] = field(default_factory=dict)
    adopts: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """what is adopted as soon as some node becomes it: generation, result, verdict"""
    fragments: dict[str, str] = field(default_factory=dict)
    cascade: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.run, self.gen

    def task_id(self, node: str) -> str:
        """The Celery task id of a node, and the once-id of its message."""
        return f"{self.run}.{self.gen}.{node}"

    def stands(self, decision: str) -> bool:
        """Whether a decision is still to be applied; '' is none, and always is."""
        return decision in ("", self.terminated, self.open)

    def ends(self, node: str) -> str:
        """Why a node does not begin because its run is terminated, '' where it may."""
        above = node
        while above:
            if above in self.kept:
                return ""
            above = above.rpartition(".")[0]
            if above not in self.nodes or self.nodes[above].made is None:
                break
        return f"terminated by cost: decision {self.terminated}" if self.terminated else ""

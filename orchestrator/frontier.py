"""The frontier of a run, from its recorded outcomes alone: which of its nodes are due, and whose fate is sealed. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from orchestrator.graph.condition import holds
from orchestrator.joins import NOT_TAKEN, Rule


@dataclass
class Frontier:
    """What follows from the outcomes that nodes have.

    states: by node: its outcome, `due` or `pending`. waits: what state counts of each: parents in the way, and, of nodes that count their
    parents, `node:ok` and `node:taken`, of those that became others `node:made` and `node:bad`. sealed: nodes whose fate follows from a
    parent's but is not written yet, with a ! before it where they are not taken.
    """

    states: dict[str, str] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    sealed: list[str] = field(default_factory=list)


def is_not_taken(row: Mapping[str, Any]) -> bool:
    """Say whether a recorded node was skipped because it is on a branch not taken."""
    return bool(row.get("outcome") == "skipped" and str(row.get("reason") or "").startswith(NOT_TAKEN))


def frontier(
    waits: Mapping[str, int],
    controls: Mapping[str, Mapping[str, Any]],
    nodes: Mapping[str, Mapping[str, Any]],
    made: Mapping[str, int] = MappingProxyType({}),
) -> Frontier:
    """Return what follows from the outcomes in `nodes`, rows of the record by id with outcome, reason and result.

    waits: parents of every node; of one that became others, how many of these it gathers. controls: of every node, what the script `load`
    was given as ctl, or `expand` wrote. made: how many nodes such a one has become so far.
    """
    outcomes = {node: str(nodes[node]["outcome"]) for node in waits if nodes.get(node, {}).get("outcome")}
    found = Frontier(waits=dict(waits))
    rules: dict[str, Rule] = {}
    heard: dict[str, Counter[str]] = defaultdict(Counter)
    for node in outcomes:
        how = _how(nodes[node], required=bool(controls[node]["required"]))
        for child in controls[node]["next"]:
            if child not in made:
                heard[child][how] += 1
        for child, rule, *grown in controls[node].get("joins", ()):
            if bool(grown) == (child in made):  # a node that became others hears these alone
                rules[child] = rule
                heard[child][how] += 1
    for node, count in made.items():
        rules[node] = controls[node]["rule"]
        found.waits |= {f"{node}:made": count, f"{node}:taken": 1}
        if heard[node]["bad"] and rules[node] == "all_succeeded":
            found.waits[f"{node}:bad"] = 1
    for node, said in heard.items():
        rule = rules.get(node)
        bad = said["bad"] if rule is None or rule == "all_succeeded" else 0
        found.waits[node] -= said.total() - bad
        if rule is not None and said.total() - bad - said["untaken"]:
            found.waits[f"{node}:taken"] = 1
        if isinstance(rule, int):
            found.waits[f"{node}:ok"] = said["succeeded"]
    for node in waits:
        verdict = outcomes.get(node) or _verdict(node, rules.get(node), found.waits, heard[node]["bad"], controls, nodes)
        if node in made and node not in outcomes and made[node] < controls[node]["of"]:
            verdict = "due"  # it goes on becoming what it becomes
        found.states[node] = verdict if verdict not in ("sealed", "untaken") else "pending"
        if verdict in ("sealed", "untaken"):
            found.sealed.append(node if verdict == "sealed" else f"!{node}")
    return found


def stopped_by(outcomes: Iterable[tuple[str, Mapping[str, Any]]], required: Mapping[str, bool]) -> str:
    """Return why nothing more begins of a run that its first failure stops, '' while none of its required nodes has failed.

    outcomes: node ids with their recorded rows.
    """
    failed = [(row["finished_at"] or 0, node, row["outcome"]) for node, row in outcomes if row["outcome"] in ("failed", "timed_out")]
    first = min((each for each in failed if required[each[1]]), default=None)
    return f"stopped: the node '{first[1]}' {'failed' if first[2] == 'failed' else 'timed out'}" if first else ""


def _how(row: Mapping[str, Any], *, required: bool) -> str:
    outcome = row["outcome"]
    if outcome == "succeeded":
        return "succeeded"
    if is_not_taken(row):
        return "untaken"
    return "passed" if outcome == "skipped" or (not required and outcome in ("failed", "timed_out")) else "bad"


def _verdict(
    node: str,
    rule: Rule | None,
    waits: Mapping[str, int],
    bad: int,
    controls: Mapping[str, Mapping[str, Any]],
    nodes: Mapping[str, Mapping[str, Any]],
) -> str:
    """What a node without an outcome is: pending, due, sealed or untaken. As the scripts decide it, parent by parent."""
    wait, taken = waits[node], f"{node}:taken" in waits
    if bad and (rule is None or rule == "all_succeeded"):
        return "sealed"
    if rule is None:
        return "due" if wait == 0 else "pending"
    if wait == 0 and not taken:
        return "untaken"
    if isinstance(rule, int):
        ok = waits.get(f"{node}:ok", 0)
        if ok < rule:
            return "sealed" if ok + wait < rule and taken else "pending"
    elif wait:
        return "pending"
    when = controls[node].get("when")
    if when is None:
        return "due"
    asked = nodes.get(when["ref"], {})
    if not asked.get("outcome"):
        return "pending"
    text = asked["result"] if asked["outcome"] == "succeeded" else None
    return "due" if holds(when, text) else "untaken"

"""What Redis must hold, computed from the record: the pure half of recovery.

Every value is absolute. Nothing of the lost epoch runs any more: its incarnations are dead, its open reservations void.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cost import keys as money
from cost.levels import level_rows, stopped_until
from cost.money import write_cats
from cost.period import month_of
from cost.task_ledger import TASK_PREFIX, attempts_before
from orchestrator import keys as names
from orchestrator.frontier import frontier, is_not_taken, stopped_by
from tenancy import keys as transport

LAPSED = "lapsed"
"""The cause of an entry that frees what a run held that was paused for long."""

ATTEMPTS_PER_EPOCH = 100
"""Attempts are numbered anew from (epoch - 1) x 100 after a rebuild: a number given out in the lost tail never comes again."""


class LoadRow(NamedTuple):
    """A node as submission loads it, in the order of the script `load`; `ctl` and `spec` are JSON, `wait` counts parents."""

    node: str
    wait: int
    ctl: str
    spec: str
    verdict: str
    fragment: str


@dataclass(frozen=True)
class Loaded:
    """A compiled run: its nodes, its fragments' JSON by index, and what admission was asked for.

    made: of nodes that became others, how many of these there are; `regrown` has put them among the nodes. grown: their ids.
    """

    nodes: Sequence[LoadRow]
    fragments: Mapping[str, str]
    want: Mapping[str, Any]
    made: Mapping[str, int] = field(default_factory=dict)
    grown: Collection[str] = ()


@dataclass(frozen=True)
class Recorded:
    """A live, admitted run as the record knows it.

    run: columns of its row. nodes: columns by node id, for nodes that were ever due. ledger: its entries, in any order.
    decisions: the events `decision.made` about it and `run.approved`, in their order. expanded: its events `node.expanded`, likewise.
    adopts: by id, what it adopts as soon as some node becomes that, as state keeps it. paused_at: since when it is paused, ms.
    """

    run: Mapping[str, Any]
    nodes: Mapping[str, Mapping[str, Any]]
    ledger: Sequence[Mapping[str, Any]]
    decisions: Sequence[Mapping[str, Any]] = ()
    expanded: Sequence[Mapping[str, Any]] = ()
    adopts: Mapping[str, str] = field(default_factory=dict)
    paused_at: int | None = None


@dataclass
class Keys:
    """Redis keys with their whole content."""

    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    sorted_sets: dict[str, dict[str, int]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)


def run_keys(recorded: Recorded, loaded: Loaded, epoch: int, now: int, own_pool: str = "default") -> Keys:
    """Return the keys of one run as the first script of `epoch` must find them; `now` in ms, `own_pool` is its tenant's."""
    run = recorded.run
    rg = f"{run['run_id']}.{run['generation']}"
    controls = {row.node: json.loads(row.ctl) for row in loaded.nodes}
    found = frontier({row.node: row.wait for row in loaded.nodes}, controls, recorded.nodes, loaded.made)
    states, waits, sealed = found.states, found.waits, found.sealed
    if run["status"] == "submitted":  # its roots become due when it is launched
        states |= {row.node: "pending" for row in loaded.nodes if row.wait == 0 and states[row.node] == "due"}
    required = {node: bool(control["required"]) for node, control in controls.items()}
    keys = Keys()
    keys.hashes[names.of_run("run", rg)] = _run_hash(run, loaded, states, required, recorded)
    if "on_failure" in loaded.want:
        keys.hashes[names.of_run("run", rg)]["on_failure"] = loaded.want["on_failure"]
        if stopped := stopped_by(recorded.nodes.items(), required):
            keys.hashes[names.of_run("run", rg)]["stopped"] = stopped
    if loaded.grown:
        keys.hashes[names.of_run("run", rg)]["grown"] = "1"
    if run["status"] == "submitted" and (roots := loading(loaded, own_pool)):
        keys.hashes[names.of_run("run", rg)]["roots"] = json.dumps(roots)
    if loaded.want["max_parallel"]:
        keys.hashes[transport.CAPS] = {rg: str(loaded.want["max_parallel"])}
    if run["ranked"]:
        keys.hashes[transport.RANKS] = {rg: str(run["ranked"])}
    raised = {f"{rg}.{node}": str(row["timeout_s"]) for node, row in recorded.nodes.items() if row["timeout_s"]}
    keys.hashes[names.of_run("timeout", rg)] = raised | ({"*": str(run["timeout_s"])} if run["timeout_s"] else {})
    if was_admitted(run):
        if recorded.paused_at is not None:
            keys.sorted_sets[money.AWAY] = {rg: recorded.paused_at}
        needed, unfunded = _needed(recorded, loaded, controls, states)
        keys.hashes[money.purse(rg)] = _purse(recorded, needed)
        for node in unfunded:
            controls[node] |= {name: "0" for name in ("floor", "expects") if name in controls[node]}
    keys.hashes[money.reservations(rg)] = _reservations(recorded.ledger)
    keys.hashes[names.of_run("state", rg)] = states
    keys.hashes[names.of_run("wait", rg)] = {node: str(count) for node, count in waits.items()}
    keys.hashes[names.of_run("ctl", rg)] = {node: json.dumps(control, separators=(",", ":")) for node, control in controls.items()}
    keys.hashes[names.of_run("adopts", rg)] = {node: text for node, text in recorded.adopts.items() if node not in states}
    keys.hashes[names.of_run("spec", rg)] = {row.node: row.spec for row in loaded.nodes}
    keys.hashes[names.of_run("fragment", rg)] = {**loaded.fragments, **{f"of:{row.node}": row.fragment for row in loaded.nodes}}
    verdicts = _verdicts(recorded, loaded)
    keys.hashes[names.of_run("verdict", rg)] = {node: verdict for node, verdict in verdicts.items() if verdict}
    fields, keys.hashes[names.of_run("decision", rg)] = _decisions(recorded.decisions)
    keys.hashes[names.of_run("run", rg)] |= fields
    keys.hashes[names.of_run("attempt", rg)] = _attempts(states, recorded.nodes, epoch)
    cancelled = {node: row["stop"] for node, row in recorded.nodes.items() if row["stop"] is not None and not row["outcome"]}
    keys.hashes[names.of_run("stop", rg)] = cancelled
    keys.hashes[names.of_run("result", rg)] = {node: row["result"] for node, row in recorded.nodes.items() if row["outcome"] == "succeeded"}
    keys.hashes[names.of_run("fault", rg)] = {node: row["error"] for node, row in recorded.nodes.items() if row["error"]}
    # Since 0: older than any age at which the sweeper publishes what is due and has no message.
    keys.sorted_sets[names.of_run("due", rg)] = {node: 0 for node, state in states.items() if state == "due"}
    keys.sorted_sets[names.RUNS] = {rg: now}
    fenced = run["status"] == "cancelling" or "stopped" in keys.hashes[names.of_run("run", rg)]
    keys.lists[names.of_run("cascade", rg)] = [] if fenced else sealed
    return keys


def _verdicts(recorded: Recorded, loaded: Loaded) -> dict[str, str]:
    """Return what nodes are to run as: by the last decision that touched them, else as they were loaded."""
    found: dict[str, str] = {}
    for row in loaded.nodes:
        known = recorded.nodes.get(row.node, {}).get("verdict")
        found[row.node] = row.verdict if known is None else known
    return found


def _decisions(events: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a run has of its decisions: fields of the run itself, and its decisions' hash.

    One that was not applied to the end is not gone on with: the next one is decided from what there is. But a run that was terminated is.
    """
    made = [event for event in events if event["t"] == "decision.made"]
    if not made:
        return {}, {}
    last, acted = made[-1], [event for event in events if not event.get("observed")]
    mark = {"action": last["action"], "flags": last.get("flags") or [], "basis": last.get("basis")}
    own = {"n": str(last["decision"]).rpartition(".")[2], "last": json.dumps(mark, separators=(",", ":"), ensure_ascii=False)}
    run: dict[str, str] = {}
    for event in acted:
        match event.get("action"):
            case None:  # somebody approved it
                run.pop("waits", None)
            case "terminate":
                run["terminated"] = str(event["decision"])
                own |= {f"kept:{node}": "1" for node in event.get("kept") or ()}
            case "hold" | "finish" as kind:
                run["waits"] = str(kind)
            case "restore":
                run.pop("waits", None)
    return run, own


def was_admitted(run: Mapping[str, Any]) -> bool:
    """Whether a run has money and a place; one that was cancelled while it waited has neither."""
    return run["hold"] is not None


def loading(loaded: Loaded, own_pool: str) -> dict[str, int]:
    """Return, by pool, the roots of a run that was admitted and not launched."""
    roots: dict[str, int] = {}
    for name, count in loaded.want["roots"].items():
        roots[name or own_pool] = roots.get(name or own_pool, 0) + count
    return roots


def line_keys(held: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Keys:
    """Return the lines of runs that wait, each a row of the record and what it asked for, in the order in which they came."""
    keys = Keys()
    turns = keys.sorted_sets.setdefault(transport.WAITING, {})
    for place, (run, want) in enumerate(held, 1):
        rg = f"{run['run_id']}.{run['generation']}"
        line = names.unserved if run["reason"] == "worker" else names.line
        keys.sorted_sets.setdefault(line(run["tenant"]), {})[rg] = place
        turns.setdefault(run["tenant"], place)
        keys.hashes[names.of_run("run", rg)] = {
            **{name: str(want[name]) for name in ("graph", "total", "estimate", "floor", "priority")},
            "tenant": run["tenant"],
            "status": "held",
            "left": str(want["total"]),
            "hold": "0",
            "created": str(run["submitted_at"]),
            "why": run["reason"] or "",
            "want": json.dumps(want),
            "held": str(run["submitted_at"]),
        }
        if run["timeout_s"]:
            keys.hashes[names.of_run("timeout", rg)] = {"*": str(run["timeout_s"])}
    return keys


def pool_keys(pressures: Mapping[str, Mapping[str, Any]], roots: Mapping[tuple[str, str], int]) -> Keys:
    """Return what is kept of pools: the last recorded change of each, and the roots by pool and tenant that are not launched."""
    keys = Keys()
    for pool, event in pressures.items():
        keys.hashes[names.pressure(pool)] = {
            "state": str(event["state"]),
            "since": str(event["at"]),
            **{name: str(event[name]) for name in ("parked", "parked_ms")},
        }
    by_pool: Counter[str] = Counter()
    for (pool, tenant), count in roots.items():
        by_pool[pool] += count
        keys.hashes.setdefault(names.loading_of(pool), {})[tenant] = str(count)
    keys.hashes[transport.LOADING] = {pool: str(count) for pool, count in by_pool.items()}
    return keys


def _needed(
    recorded: Recorded, loaded: Loaded, controls: Mapping[str, Mapping[str, Any]], states: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Return the floor of the nodes that wait, for all of which nothing is set aside; and those that the hold does not cover.

    Of what nodes became only as much is needed as the hold covers, as when they became it.
    """
    waiting = [row.node for row in loaded.nodes if states[row.node] in ("pending", "due")]
    needs = {node: sum(int(controls[node].get(name, "0")) for name in ("floor", "expects")) for node in waiting}
    needed, hold = sum(need for node, need in needs.items() if node not in loaded.grown), remaining_hold(recorded)
    unfunded: list[str] = []
    for node in waiting:
        if node not in loaded.grown:
            continue
        if needs[node] <= hold - needed:
            needed += needs[node]
        else:
            unfunded.append(node)
    return needed, unfunded


def _run_hash(
    run: Mapping[str, Any],
    loaded: Loaded,
    states: Mapping[str, str],
    required: Mapping[str, bool],
    recorded: Recorded,
) -> dict[str, str]:
    nodes, verdicts = recorded.nodes, _verdicts(recorded, loaded)
    ended = {node: state for node, state in states.items() if state not in ("pending", "due")}
    fields = {
        "tenant": run["tenant"],
        "graph": run["graph_name"],
        "status": "loading" if run["status"] == "submitted" else run["status"],
        "total": str(len(states)),
        "left": str(len(states) - len(ended)),
        "estimate": str(run["estimate"] or 0),
        "floor": str(run["floor"] or 0),
        "hold": str(run["hold"] or 0),
        "created": str(run["submitted_at"]),
        "priority": str(run["priority"]),
    }
    for outcome in ended.values():
        fields[f"n:{outcome}"] = str(int(fields.get(f"n:{outcome}", "0")) + 1)
    bad = [node for node, outcome in ended.items() if outcome != "succeeded" and not is_not_taken(nodes[node])]
    if any(required[node] for node in bad):
        fields["required_failed"] = "1"
    # Also what is adopted as a cheaper variant, which is no better than when it ran.
    downgraded = any(verdicts[node] for node, outcome in ended.items() if outcome == "succeeded")
    if any(not required[node] for node in bad) or downgraded:
        fields["degraded"] = "1"
    if run["status"] == "cancelling":
        fields["reason"] = run["reason"] or ""
    return fields


def _attempts(states: Mapping[str, str], nodes: Mapping[str, Mapping[str, Any]], epoch: int) -> dict[str, str]:
    first = (epoch - 1) * ATTEMPTS_PER_EPOCH
    fields: dict[str, str] = {}
    for node, state in states.items():
        row = nodes.get(node, {})
        claims = row.get("attempt") or 0
        fields[node] = str(max(claims, first) if state in ("pending", "due") else claims)
        for count in ("fails", "lost"):
            if row.get(count):
                fields[f"{node}:{count}"] = str(row[count])
    return fields


def _reservations(ledger: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return each execution as `state|amount|parts|actual|cats|since`; one that was open is void."""
    executions: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for entry in ledger:
        if entry["node_id"]:
            executions.setdefault(f"{entry['node_id']}:{entry['attempt']}", {}).setdefault(entry["kind"], []).append(entry)
    fields: dict[str, str] = {}
    for execution, kinds in executions.items():
        state = "waste" if "waste" in kinds else "settled" if "settle" in kinds else "void"
        # An ordinary task that was closed without a report, and reported after all, has both.
        used = [*kinds.get("settle", []), *kinds.get("waste", [])]
        any_entry = next(iter(kinds.values()))[0]
        parts: dict[int, int] = {}
        for entry in [*kinds.get("reserve", []), *kinds.get("extend", [])]:
            parts[int(entry["day"])] = parts.get(int(entry["day"]), 0) + int(entry["amount"])
        parts = dict(sorted(parts.items())) or {int(any_entry["day"]): 0}
        # As `cost.money.write_cats` writes them: a settlement that is repeated must find the same text.
        micros: dict[str, int] = {}
        for entry in used:
            micros[str(entry["category"])] = micros.get(str(entry["category"]), 0) + int(entry["amount"])
        cats, actual = write_cats(micros), sum(entry["amount"] for entry in used)
        since = max(int(entry["at"]) for entries in kinds.values() for entry in entries)
        written = ",".join(f"{day}={part}" for day, part in parts.items())
        fields[execution] = f"{state}|{sum(parts.values())}|{written}|{actual}|{cats}|{since}"
    return fields


def task_keys(ledgers: Mapping[str, Sequence[Mapping[str, Any]]], epoch: int, now: int) -> Keys:
    """Return the keys of ordinary tasks by the entries of their ledgers; the next sweep lets them go in their time.

    What is open is void, and what it still reports is waste. What was charged may have been charged without a report.
    """
    keys = Keys()
    before = attempts_before(now) + (epoch - 1) * ATTEMPTS_PER_EPOCH
    keys.hashes[money.REBUILT] = {"attempts": str(before)}
    keys.sorted_sets[money.TASKS] = {}
    for run, ledger in ledgers.items():
        task_id, tenant = run.removeprefix(TASK_PREFIX), str(ledger[0]["tenant"])
        rows = _reservations(ledger)
        unreported = {f"unreported:{name.rsplit(':', 1)[1]}": "1" for name, row in rows.items() if row.startswith("settled|")}
        last = max(int(entry["attempt"]) for entry in ledger)
        keys.hashes[money.task(task_id)] = {"tenant": tenant, "attempt": str(max(last, before)), **unreported}
        empty = {"hold": "0", "budget": "", "reserved": "0", "open": "0"}
        keys.hashes[money.purse(money.task_run(task_id))] = {"tenant": tenant, **empty, "spent": str(spent(ledger))}
        keys.hashes[money.reservations(money.task_run(task_id))] = rows
        keys.sorted_sets[money.TASKS][task_id] = now
    return keys


def spent(ledger: Iterable[Mapping[str, Any]]) -> int:
    """Return what the entries charged, in micros: settlements and waste."""
    return sum(int(entry["amount"]) for entry in ledger if entry["kind"] in ("settle", "waste"))


def remaining_hold(recorded: Recorded) -> int:
    """Return the hold of a run: what its entries moved to and from it, and what is open, which the new epoch gives back to it."""
    moved = sum(int(entry["to_hold"]) for entry in recorded.ledger)
    closed = {(entry["node_id"], entry["attempt"]) for entry in recorded.ledger if entry["kind"] not in ("reserve", "extend")}
    return moved + sum(
        int(entry["amount"])
        for entry in recorded.ledger
        if entry["kind"] in ("reserve", "extend") and (entry["node_id"], entry["attempt"]) not in closed
    )


def _purse(recorded: Recorded, needed: int) -> dict[str, str]:
    budget, paused_at = recorded.run["budget"], recorded.paused_at
    lapsed = paused_at is not None and any(entry["cause"] == LAPSED and entry["at"] >= paused_at for entry in recorded.ledger)
    return {
        "tenant": recorded.run["tenant"],
        "hold": str(remaining_hold(recorded)),
        "needed": str(needed),
        "budget": "" if budget is None else str(budget),
        "reserved": "0",
        "spent": str(spent(recorded.ledger)),
        "open": "0",
        **({"lapsed": "1"} if lapsed else {}),
    }


def level_keys(policies: Mapping[str, Mapping[str, str]], events: Iterable[Mapping[str, Any]], now: int) -> Keys:
    """Return what tenants' levels are by the recorded events of them, and whom they stop; `now` in ms."""
    keys = Keys()
    stopped: dict[str, int] = {}
    halted: dict[str, int] = {}
    for tenant, rows in level_rows(events).items():
        keys.hashes[money.level(tenant)] = rows
        for ends, until in zip((stopped, halted), stopped_until(policies.get(tenant, {}), rows, now), strict=True):
            if until is not None:
                ends[tenant] = until
    keys.sorted_sets[transport.STOPPED] = stopped
    keys.sorted_sets[transport.HALTED] = halted
    return keys


def adjusted_keys(adjustments: Iterable[Mapping[str, Any]]) -> Keys:
    """Return the ids of adjustments, so that each counts once after a rebuild too."""
    keys = Keys()
    for row in adjustments:
        tenant, month = str(row["tenant"]), month_of(int(row["day"]))
        name = str(row["id"]).removeprefix(f"adjust.{tenant}.{month}.")
        keys.hashes.setdefault(money.adjusted(tenant, month), {})[name] = f"{row['amount']}|{row['category']}|{row['day']}"
    return keys


def tenant_keys(policies: Mapping[str, Mapping[str, str]], runs: Iterable[Recorded], charged: Iterable[Mapping[str, Any]]) -> Keys:
    """Return the counters of every tenant.

    policies: fields by tenant. runs: every live run. charged: sums of the ledger with tenant, day, kind (settle, waste or
    adjust), category, amount, of whole months.
    """
    keys = Keys()
    for tenant, fields in policies.items():
        keys.hashes[money.tenant(tenant)] = {**fields, "held": "0", "reserved": "0", "running": "0"}
    for recorded in filter(lambda one: was_admitted(one.run), runs):
        counters = keys.hashes[money.tenant(recorded.run["tenant"])]
        counters["held"] = str(int(counters["held"]) + remaining_hold(recorded))
        if recorded.paused_at is None:  # one that is paused has no place
            counters["running"] = str(int(counters["running"]) + 1)
    for row in charged:
        counted = ["settled"] + (["waste"] if row["kind"] == "waste" else []) + ([f"c:{row['category']}"] if row["category"] else [])
        day = int(row["day"])
        for key in (money.spent(row["tenant"], day), money.spent_in_month(row["tenant"], month_of(day))):
            book = keys.hashes.setdefault(key, {"settled": "0", "reserved": "0", "waste": "0"})
            for name in counted:
                book[name] = str(int(book.get(name, "0")) + int(row["amount"]))
    return keys

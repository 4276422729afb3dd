"""Indexing: three tenants' projects at once over the documentation of installed packages, and what came of them."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cost.money import format_units
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.store import read

from .scene import TENANTS, Scene
from .shortage import Shortage, announce, short_of_money, tell

LOOK_S = 0.1
WAIT_S = 60.0
"""How long the runs may take together before the demo gives up on them."""

SHORT = TENANTS[0]
"""Who has less money than its project needs."""

_ANSWER_CHARACTERS = 320
_HANG = "     "
_ROLE = re.compile(r":[a-z]+(?::[a-z]+)*:`~?([^`<]+?)(?:\s*<[^`]*>)?`")
"""A role of reStructuredText, such as :meth:`x`, and what it shows."""
_TENANT_WIDTH = max(map(len, TENANTS))


@dataclass(frozen=True)
class Project:
    """A tenant's run over a corpus."""

    tenant: str
    run: RunHandle
    currency: str


def show(scene: Scene) -> bool:
    """Run the three projects and print what they answer and cost; return whether all succeeded."""
    board = scene.board
    board.title("Three tenants index what the installed packages say about themselves")
    corpora = dict(zip(TENANTS, scene.documents.CORPORA, strict=True))
    folders = {tenant: _written(scene, tenant, corpus) for tenant, corpus in corpora.items()}
    graphs = {tenant: scene.documents.rag_project(str(folders[tenant]), list(corpus.questions)) for tenant, corpus in corpora.items()}
    with short_of_money(scene, SHORT, graphs[SHORT]) as shortage:
        announce(scene, shortage, read.get_tenant(scene.client.engine, SHORT).currency)
        began = time.monotonic()
        projects = [_submitted(scene, tenant, graph) for tenant, graph in graphs.items()]
        _watch(scene, projects)
        took_s = time.monotonic() - began
        ended = [project for project in projects if project.run.status == "ended"]
        board.say(f"{len(ended)} of {len(projects)} runs ended; together they took {took_s:.1f} s")
        scene.figures["indexing_s"] = round(took_s, 3)
        succeeded = [_tell(scene, project, shortage if project.tenant == SHORT else None) for project in projects]
    return all(succeeded)


def _written(scene: Scene, tenant: str, corpus: Any) -> Path:
    """Write a tenant's documents, and return where they are."""
    folder = scene.stack.home / "corpora" / tenant
    files = scene.documents.installed_corpus(corpus.packages, folder)
    scene.board.say(f"{tenant}: READMEs and docstrings of {', '.join(corpus.packages)}, {files} files")
    return folder


def _submitted(scene: Scene, tenant: str, graph: Graph) -> Project:
    run = scene.client.submit(graph, tenant=tenant)
    return Project(tenant, run, read.get_tenant(scene.client.engine, tenant).currency)


def _watch(scene: Scene, projects: Sequence[Project]) -> None:
    """Show how the runs go until all are over."""
    began = time.monotonic()
    told: set[tuple[str, str]] = set()
    with scene.board.live() as draw:
        while True:
            now = time.time()
            over = all(project.run.status in ("ended", "refused") for project in projects)
            nodes = {project.tenant: read.get_nodes(scene.client.engine, project.run.run_id) for project in projects}
            rows = [_row(tenant, each, now) for tenant, each in nodes.items()]
            draw(("tenant", *(node.id for node in nodes[projects[0].tenant]), projects[0].currency), rows)
            for tenant, each in nodes.items():
                for node in each:
                    if node.state == "ended" and (tenant, node.id) not in told:
                        told.add((tenant, node.id))
                        scene.board.step(f"{tenant:{_TENANT_WIDTH}}  {node.id:9} {_ended(node)}")
            if over or time.monotonic() > began + WAIT_S:
                return
            time.sleep(LOOK_S)


def _row(tenant: str, nodes: Sequence[read.NodeView], now: float) -> list[str]:
    return [tenant, *(_cell(node, now) for node in nodes), format_units(sum(node.cost_micros for node in nodes), 6)]


def _cell(node: read.NodeView, now: float) -> str:
    if node.state == "running" and node.started_at is not None:
        return f"{max(0.0, now - node.started_at):.1f}s …"
    if node.state == "due":
        return "queued"
    if node.state != "ended":
        return "·"
    if node.outcome != "succeeded":
        return f"{node.outcome} ✗"
    return f"{_seconds(node):.1f}s ✓"


def _ended(node: read.NodeView) -> str:
    told = f"{node.outcome} after {_seconds(node):.2f} s on {str(node.worker).partition('@')[0]}"
    return told if node.outcome == "succeeded" else f"{told}: {node.reason or node.error}"


def _seconds(node: read.NodeView) -> float:
    return 0.0 if node.started_at is None or node.finished_at is None else node.finished_at - node.started_at


def _tell(scene: Scene, project: Project, shortage: Shortage | None) -> bool:
    """Print what a project found and cost; return whether its run succeeded, or ended as well as its money allowed."""
    board, view = scene.board, read.get_run(scene.client.engine, project.run.run_id)
    costs = read.run_cost(scene.client.engine, view.run_id)
    told: dict[str, Any] = {"tenant": project.tenant, "run_id": view.run_id, "outcome": view.outcome or view.status, "reason": view.reason}
    told |= {"currency": project.currency, "cost_micros": sum(costs.values()), "cost": dict(costs)}
    scene.figures.setdefault("runs", []).append(told)
    board.say("")
    if view.outcome != ("succeeded" if shortage is None else "degraded"):
        board.say(f"{project.tenant}: the run is {view.outcome or view.status} ({view.reason or 'no reason on record'})")
        return False
    report = project.run.result("report")
    told |= {"documents": report["documents"], "passages": report["chunks"]}
    told |= {key: (report["evaluation"] or {}).get(key) for key in ("recall", "mrr", "top_k", "questions")}
    board.say(f"{project.tenant}: {report['documents']} documents in {report['chunks']} passages; {_quality(report['evaluation'])}")
    for answer in report["answers"]:
        board.say(f"  Q: {answer['question']}", _HANG)
        board.say(f"  A: {_shortened(answer['answer'])}", _HANG)
        board.say(f"     from {', '.join(answer['sources'][:3])}", _HANG)
    board.say(f"  {_bill(costs, project.currency)}", _HANG)
    return shortage is None or tell(scene, shortage, project.run, told)


def _quality(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation or evaluation["recall"] is None:
        return "not evaluated"
    return f"recall@{evaluation['top_k']} {evaluation['recall']:.2f}, MRR {evaluation['mrr']:.2f} over {evaluation['questions']} questions"


def _bill(costs: Mapping[str, int], currency: str) -> str:
    parts = ", ".join(f"{category} {format_units(micros, 6)}" for category, micros in sorted(costs.items(), key=lambda item: -item[1]))
    return f"cost {format_units(sum(costs.values()), 6)} {currency}: {parts}"


def without_roles(text: str) -> str:
    """Return `text` with each role of reStructuredText replaced by what it shows: :meth:`x` is x."""
    return _ROLE.sub(r"\1", text)


def _shortened(text: str) -> str:
    return textwrap.shorten(without_roles(text), _ANSWER_CHARACTERS, placeholder=" ...")

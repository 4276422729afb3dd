"""A run is a trace in OpenTelemetry: sent to a collector when it is over, killed attempts among it, with the producer's context."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from running import producer, until

from orchestrator.cli import main
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.trace.exporter import TraceExporter, open_exporter
from orchestrator.trace.identity import span_of
from tenancy.errors import HeadgateError


class Taking(InMemorySpanExporter):
    """What takes spans and remembers their order."""

    def of(self, run_id: str) -> list[str]:
        """The ids of a run's spans, in hex, as they came."""
        return [
            f"{span.context.span_id:016x}" for span in self.get_finished_spans() if (span.attributes or {}).get("headgate.run") == run_id
        ]


PARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


@dataclass
class Collector:
    """What takes spans, by OTLP over HTTP; while `away` it answers 503."""

    url: str = ""
    away: bool = False
    spans: list[Span] = field(default_factory=list)

    def of(self, run_id: str) -> dict[str, Span]:
        """The spans of a run by their id, in hex."""
        return {span.span_id.hex(): span for span in list(self.spans) if said(span).get("headgate.run") == run_id}


def said(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.away or self.path != "/v1/traces":
                self.send_response(503 if collector.away else 404)
            else:
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield collector
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def client(collector: Collector) -> Iterator[Client]:
    """A client of a stack whose recorder sends traces, with a worker that has tasks with spans of their own."""
    home = Path(tempfile.mkdtemp(prefix="hg"))
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [before.get("PYTHONPATH")])])
    import traced_tasks  # noqa: F401 - the producer knows the tasks too

    settings = Settings(home=home, otlp_endpoint=collector.url)
    try:
        with Stack(settings, 1, 2, ("traced_tasks",), console=False) as running:
            found = producer(Settings(home=home, redis_url=running.redis_url, tasks=("traced_tasks",)))
            yield found
            found.engine.dispose()
            found.kernel.link.close()
            found.kernel.app.close()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home, ignore_errors=True)


def test_a_run_with_a_killed_attempt_is_sent_under_the_producers_span(client: Client, collector: Collector, tmp_path: Path) -> None:
    nodes = [
        {"id": "here", "task": "traced_tasks.where"},
        {"id": "hurt", "task": "traced_tasks.killed_once", "params": {"path": str(tmp_path / "was-here")}},
    ]
    run = client.submit(Graph.parse({"name": "traced", "nodes": nodes}), traceparent=PARENT).wait(90)
    assert run.outcome == "succeeded"
    assert run.trace_id == "ab" * 16
    root = span_of(run.run_id, 1)
    found = until(lambda: spans if root in (spans := collector.of(run.run_id)) and len(spans) >= 6 else None, 60)
    assert {span.trace_id.hex() for span in found.values()} == {"ab" * 16}
    assert found[root].parent_span_id.hex() == "cd" * 8
    assert said(found[root])["headgate.outcome"] == "succeeded"
    hurt = span_of(run.run_id, 1, "hurt")
    first, second = (found[span_of(run.run_id, 1, "hurt", attempt)] for attempt in (1, 2))
    assert {first.parent_span_id.hex(), second.parent_span_id.hex()} == {hurt}
    assert (said(first)["headgate.outcome"], said(second)["headgate.outcome"]) == ("lost", "succeeded")
    assert first.status.code == 2
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano > 0 for span in found.values())
    # Spans that the task's own code makes are children of its attempt.
    assert run.result("here") == ["ab" * 16, span_of(run.run_id, 1, "here", 1)]


def test_without_a_producers_span_all_generations_of_a_run_have_a_trace_of_their_own(client: Client, collector: Collector) -> None:
    run = client.submit(Graph.parse({"name": "alone", "nodes": [{"id": "here", "task": "traced_tasks.where"}]})).wait(60)
    assert run.result()[0] == run.trace_id
    again = client.rerun(run.run_id, "here", "node").wait(60)
    assert again.result() == [run.trace_id, span_of(run.run_id, 2, "here", 1)]
    wanted = {span_of(run.run_id, 1), span_of(run.run_id, 2)}
    found = until(lambda: spans if wanted <= (spans := collector.of(run.run_id)).keys() else None, 60)
    assert {span.trace_id.hex() for span in found.values()} == {run.trace_id}
    assert not found[span_of(run.run_id, 1)].parent_span_id


def test_the_span_that_a_producer_is_in_is_carried_on_and_what_it_does_not_sample_is_not_sent(client: Client, collector: Collector) -> None:
    graph = Graph.parse({"name": "carried", "nodes": [{"id": "here", "task": "traced_tasks.where"}]})
    with TracerProvider().get_tracer("producer").start_as_current_span("order") as span:
        run = client.submit(graph)
        assert run.trace_id == f"{span.get_span_context().trace_id:032x}"
    unseen = client.submit(graph, traceparent=PARENT[:-1] + "0").wait(60)
    assert unseen.result()[0] == "ab" * 16
    run.wait(60)
    last = client.submit(graph).wait(60)
    until(lambda: collector.of(run.run_id) and collector.of(last.run_id), 60)
    assert collector.of(unseen.run_id) == {}


def test_what_nobody_took_is_sent_when_the_collector_is_back_and_the_record_waits_for_nobody(client: Client, collector: Collector) -> None:
    collector.away = True
    try:
        run = client.submit(Graph.parse({"name": "away", "nodes": [{"id": "here", "task": "traced_tasks.where"}]})).wait(60)
        assert run.outcome == "succeeded"
    finally:
        collector.away = False
    until(lambda: collector.of(run.run_id), 90)


def test_a_run_that_is_sent_twice_is_the_same_spans(client: Client) -> None:
    run = client.submit(Graph.parse({"name": "twice", "nodes": [{"id": "here", "task": "traced_tasks.where"}]})).wait(60)
    memory = InMemorySpanExporter()
    exporter = TraceExporter(client.engine, memory)
    assert exporter.send((run.run_id, 1))
    first = [span.to_json() for span in memory.get_finished_spans()]
    assert len(first) == 3
    memory.clear()
    assert exporter.send((run.run_id, 1))
    assert [span.to_json() for span in memory.get_finished_spans()] == first
    memory.clear()
    exporter.catch_up(client.kernel.link.now_ms())  # as a recorder does at its start
    until(lambda: {span.to_json() for span in memory.get_finished_spans()} >= set(first))
    exporter.close()


def test_of_a_run_that_goes_on_the_nodes_are_sent_as_they_end_and_the_run_when_it_is_over(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.trace import exporter as module
    from orchestrator.trace import log_reading

    for name in ("LONG_S", "LOOKS_S", "AGAIN_S"):
        monkeypatch.setattr(module, name, 0.05)
    monkeypatch.setattr(log_reading, "EVENTS_AT_ONCE", 3)
    nodes = [
        {"id": "soon", "task": "traced_tasks.where"},
        {"id": "late", "task": "traced_tasks.waits", "params": {"path": str(tmp_path / "go")}},
    ]
    memory = Taking()
    exporter = TraceExporter(client.engine, memory)
    exporter.catch_up(client.kernel.link.now_ms() + 3_600_000)  # nothing that ended before
    run = client.submit(Graph.parse({"name": "long", "nodes": nodes}))
    try:
        soon = [span_of(run.run_id, 1, "soon"), span_of(run.run_id, 1, "soon", 1)]
        until(lambda: {*soon} <= {*memory.of(run.run_id)}, 60)
        assert span_of(run.run_id, 1) not in memory.of(run.run_id), "the run is not over"
        assert span_of(run.run_id, 1, "late") not in memory.of(run.run_id)
    finally:
        (tmp_path / "go").touch()
    run.wait(60)
    exporter.runs_ended([(run.run_id, 1)])
    until(lambda: span_of(run.run_id, 1) in memory.of(run.run_id), 60)
    exporter.close()
    found = memory.of(run.run_id)
    assert len(found) == len({*found}) == 5, "each once"
    assert found[-1] == span_of(run.run_id, 1)


def test_a_run_that_was_over_before_there_was_a_collector_is_exported_by_the_command(client: Client) -> None:
    run = client.submit(Graph.parse({"name": "early", "nodes": [{"id": "here", "task": "traced_tasks.where"}]})).wait(60)
    client.rerun(run.run_id, "here", "node").wait(60)

    def headgate(*words: str) -> Result:
        with client.settings.in_force():
            return CliRunner().invoke(main, ["trace", "export", *words])

    with collecting() as late:
        done = headgate(run.run_id, "--endpoint", late.url)
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines() == [f"run {run.run_id} generation {number}: 3 spans sent" for number in (1, 2)]
        assert late.of(run.run_id).keys() >= {span_of(run.run_id, 1, "here", 1), span_of(run.run_id, 2)}
        again = headgate(run.run_id, "--generation", "1", "--json", "--endpoint", late.url)
        assert json.loads(again.stdout) == [{"run": run.run_id, "generation": 1, "spans": 3}]
        late.away = True
        refused = headgate(run.run_id, "--endpoint", late.url)
        assert (refused.exit_code, "did not take" in refused.output) == (69, True)
    assert "--endpoint or HEADGATE_OTLP_ENDPOINT" in headgate(run.run_id).output
    assert "is no URL" in headgate(run.run_id, "--endpoint", "collector").output
    live = client.submit(
        Graph.parse({"name": "live", "nodes": [{"id": "here", "task": "traced_tasks.waits", "params": {"path": "/nowhere"}}]})
    )
    try:
        assert "is not over" in headgate(live.run_id, "--endpoint", "http://127.0.0.1:9").output
    finally:
        live.cancel(now=True, reason="test")


def test_a_traceparent_that_is_none_is_refused_before_anything_is_on_record(client: Client) -> None:
    graph = Graph.parse({"name": "odd", "nodes": [{"id": "here", "task": "traced_tasks.where"}]})
    with pytest.raises(ValueError, match="is no traceparent"):
        client.submit(graph, key="odd-one", traceparent="00-xyz")
    assert client.submit(graph, key="odd-one").wait(60).outcome == "succeeded"


def test_without_the_packages_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(HeadgateError, match=r"install headgate\[otel\]"):
        open_exporter("http://127.0.0.1:1")

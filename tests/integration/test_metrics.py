"""What Prometheus scrapes from a console is what happened, names no tenant where it is open, and has what the rules of alerts name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from consoles import HEADGATE, answer, opened
from prometheus_client.parser import text_string_to_metric_families
from running import Running, until
from ulid import ULID

from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.metrics.exposition import Exposition
from orchestrator.metrics.platform import of_redis
from orchestrator.metrics.tally import Tally
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engine
from orchestrator.sweeper import Repairs, Sweeper
from tenancy.link import Link
from tenancy.log import append

DOCS = Path(__file__).resolve().parents[2] / "docs"
USER = "prom:secret"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def guarded(stack: Running) -> Iterator[str]:
    """A console with a password."""
    with opened(stack.client.settings, [*HEADGATE, f"--basic-auth={USER}"]) as url:
        until(lambda: counted(url) is not None)
        yield url


def scrape(url: str, path: str = "/metrics", user: str | None = None) -> Samples:
    status, text = answer(url + path, user)
    assert status == 200, text
    return samples(text)


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def counted(url: str, outcome: str = "succeeded") -> float | None:
    return scrape(url).get(("headgate_nodes_total", frozenset({("outcome", outcome)})))


def graph(**more: object) -> Graph:
    return Graph.parse({"name": "measured", "nodes": [{"id": "a", "task": "synthetic.sleep", "params": {"seconds": 0.2}, **more}]})


def test_nodes_runs_and_times_are_counted_as_they_end(stack: Running, guarded: str) -> None:
    before = scrape(guarded)
    for _ in range(3):
        assert stack.client.submit(graph()).wait(60).outcome == "succeeded"
    nodes = ("headgate_nodes_total", frozenset({("outcome", "succeeded")}))
    until(lambda: scrape(guarded)[nodes] >= before[nodes] + 3)
    after = until(
        lambda: found if value(found := scrape(guarded), "headgate_runs_total", outcome="succeeded") >= _runs(before) + 3 else None
    )
    took = value(after, "headgate_node_duration_seconds_sum", outcome="succeeded") - value(
        before, "headgate_node_duration_seconds_sum", outcome="succeeded"
    )
    assert took >= 0.5
    waited = "headgate_node_queue_wait_seconds_count"
    assert value(after, waited) >= value(before, waited) + 3
    assert value(after, "headgate_workers") == 2
    assert value(after, "headgate_pool_slots", pool="default") == 4
    assert value(after, "headgate_redis_up") == value(after, "headgate_record_up") == 1
    assert value(after, "headgate_dead_letters") == 0
    assert value(after, "headgate_recorder_lag_seconds") < 30


def _runs(found: Samples) -> float:
    return value(found, "headgate_runs_total", outcome="succeeded")


def test_tenants_are_told_to_who_is_let_in_and_named_on_no_open_address(stack: Running, guarded: str) -> None:
    tenant = f"secretive-{str(ULID())[-8:].lower()}"
    stack.client.tenants.create(tenant, limit_per_day_micros=5_000_000)
    run = stack.client.submit(graph(estimate={"llm": 40_000}, task="synthetic.sleep"), tenant=tenant).wait(60)
    told = until(
        lambda: (
            found
            if ("headgate_tenant_nodes_total", frozenset({("tenant", tenant), ("outcome", "succeeded")}))
            in (found := scrape(guarded, "/metrics/tenants", USER))
            else None
        )
    )
    usage = stack.client.tenants.usage(tenant)
    assert value(told, "headgate_tenant_limit_micros", tenant=tenant, period="day") == 5_000_000
    assert value(told, "headgate_tenant_exposure_micros", tenant=tenant) == usage.settled_micros + usage.reserved_micros + usage.held_micros
    assert value(told, "headgate_tenant_micros", tenant=tenant, what="settled") == run.cost_micros
    assert value(told, "headgate_tenant_level", tenant=tenant) == 0
    assert tenant not in answer(f"{guarded}/metrics")[1]
    for user in (None, "prom:wrong"):
        status, text = answer(f"{guarded}/metrics/tenants", user)
        assert status == 401
        assert tenant not in text


def test_without_authentication_tenants_are_told_only_where_the_api_is_open(stack: Running, console: str) -> None:
    status, text = answer(f"{console}/metrics/tenants")
    assert status == 401
    assert "headgate_tenant" not in text
    with opened(stack.client.settings, HEADGATE, FLOWER_UNAUTHENTICATED_API="true") as url:
        assert value(scrape(url, "/metrics/tenants"), "headgate_tenants_up") == 1


def test_every_metric_of_a_rule_and_of_the_page_is_in_a_scrape_and_the_other_way_round(guarded: str) -> None:
    found = scrape(guarded) | scrape(guarded, "/metrics/tenants", USER)
    names = {name for name, _ in found}
    rules = (DOCS / "alerts.yml").read_text()
    expressions = re.findall(r"^ +expr: (?:>-\n)?(.*?)^ +(?:for|labels):", rules, re.DOTALL | re.MULTILINE)
    assert len(expressions) == rules.count("- alert:") > 10
    for expression in expressions:
        used = re.findall(r"(headgate_\w+)(?:\{([^}]*)\})?", expression)
        assert used, expression
        for name, matchers in used:
            assert name in names or name.startswith("headgate_tenant_"), f"no scrape has {name}, which a rule needs"
            labels = [labels for each, labels in found if each == name]
            for label, operator, wanted in re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers):
                values = {dict(each).get(label) for each in labels}
                for one in wanted.split("|") if operator == "=~" else [wanted]:
                    assert one in values, f"{name} has no {label}={one}, which a rule needs"
    for rule in re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", rules, re.DOTALL):
        assert "severity:" in rule[1], rule
        assert "summary:" in rule[1], rule
    page = set(re.findall(r"`(headgate_\w+)`", (DOCS / "metrics.md").read_text()))
    families = {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in names if name.startswith("headgate_")}
    assert families - page == set()
    assert {name for name in page - families if not name.startswith("headgate_tenant_")} == set()


def test_a_scrape_says_what_is_away_instead_of_failing(settings: Settings, redis_server: RedisServer) -> None:
    link, engine = Link(redis_server.client_url), open_engine(settings.resolved_database_url())
    found = samples(Exposition(link, engine, Tally()).platform.text().decode())
    assert value(found, "headgate_redis_up") == 1
    redis_server.kill()
    found = samples(Exposition(link, engine, Tally()).platform.text().decode())
    assert value(found, "headgate_redis_up") == 0
    assert value(found, "headgate_nodes_total", outcome="failed") == 0
    found = samples(Exposition(link, engine, Tally()).tenants.text().decode())
    assert value(found, "headgate_tenants_up") == 0
    engine.dispose()


def test_however_often_it_is_asked_for_a_scrape_is_made_once_a_second(settings: Settings, redis_server: RedisServer) -> None:
    link, engine = Link(redis_server.client_url), open_engine(settings.resolved_database_url())
    shown = Exposition(link, engine, Tally())
    shown.platform.text()
    asked = int(link.read("INFO", "stats")["total_commands_processed"])
    for _ in range(1_000):
        shown.platform.text()
    assert int(link.read("INFO", "stats")["total_commands_processed"]) - asked < 1_000
    engine.dispose()
    link.close()


def test_the_lag_of_the_recorder_is_the_age_of_what_is_not_on_record(redis_server: RedisServer, recorder: Recorder) -> None:
    link = Link(redis_server.client_url)

    def gauges() -> dict[str, float]:
        return {each.name: each.samples[0].value for each in of_redis(link) if len(each.samples) == 1}

    while recorder.step(None):
        pass
    assert (gauges()["headgate_recorder_lag_events"], gauges()["headgate_recorder_lag_seconds"]) == (0, 0)
    for _ in range(3):
        append(link, {"t": "sweep.repaired", "published": 1})
    assert gauges()["headgate_recorder_lag_events"] == 3
    until(lambda: gauges()["headgate_recorder_lag_seconds"] > 0.1)
    while recorder.step(None):
        pass
    assert (gauges()["headgate_recorder_lag_events"], gauges()["headgate_recorder_lag_seconds"]) == (0, 0)
    link.close()


def test_a_sweep_that_mended_something_says_so_on_the_log_and_one_that_did_not_is_silent(stack: Running) -> None:
    kernel = stack.client.kernel
    sweeper = Sweeper(kernel, stack.client.engine)
    sweeper._tell(Repairs(forgotten=7, admitted=1))
    assert not [entry for _, entry in stack.redis.xrevrange("hg1:events", count=50) if '"reclaimed": 12345' in entry["e"]]
    sweeper._tell(Repairs(published=12_345))
    assert [entry for _, entry in stack.redis.xrevrange("hg1:events", count=50) if '"published":12345' in entry["e"].replace(" ", "")]

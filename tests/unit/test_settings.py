from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path

import pytest

from orchestrator.graph.limits import DEFAULT_LIMITS, Limits
from orchestrator.redis_url import for_client, for_kombu
from orchestrator.settings import Settings
from tenancy.errors import HeadgateError, Unavailable

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_are_those_of_the_embedded_stack() -> None:
    settings = Settings.load()
    assert settings.home == Path(".headgate")
    assert settings.redis_url is None
    assert (settings.max_nodes, settings.max_edges, settings.max_params_bytes) == (10_000, 50_000, 65_536)
    assert settings.tasks == ()


def test_the_environment_is_read_once_until_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load() is Settings.load()
    monkeypatch.setenv("HEADGATE_MAX_NODES", "200000")
    assert Settings.load().max_nodes == 10_000
    Settings.forget()
    assert Settings.load().max_nodes == 200_000


def test_an_unknown_name_is_answered_with_the_nearest_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_MAXNODES", "5")
    with pytest.raises(HeadgateError, match=r"^HEADGATE_MAXNODES is not a setting of Headgate; the nearest is HEADGATE_MAX_NODES$"):
        Settings.load()


def test_the_name_that_dev_reads_is_no_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_VENV", "/nowhere")
    Settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_NODES", "200001"),
        ("MAX_NODES", "many"),
        ("INCARNATION_TTL_S", "0"),
        ("RETRY_DELAY_MAX_S", "inf"),
        ("REPORTS_KEPT_DAYS", "99"),
        ("REPORTS_WEBHOOK", "javascript:alert"),
        ("REPORTS_WEBHOOK", "example.org"),
    ],
)
def test_a_value_that_does_not_fit_is_named_in_one_sentence(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"HEADGATE_{name}", value)
    with pytest.raises(HeadgateError, match=rf"^HEADGATE_{name}={value} does not fit: [^\n]+$"):
        Settings.load()


def test_every_setting_is_read_somewhere() -> None:
    paths = [ROOT / "celeryconfig.py", *(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]
    source = "".join(path.read_text() for path in paths if path != ROOT / "orchestrator/settings.py")
    places = ("redis_url", "database_url", "results_url", "artifacts_dir")
    resolved = {name: f"resolved_{name}" for name in places}
    unread = [name for name in Settings.model_fields if not re.search(rf"settings\.{resolved.get(name, name)}\b", source)]
    assert not unread, f"settings that nothing reads: {unread}"


def test_the_limits_of_a_graph_are_the_same_set_or_not() -> None:
    s = Settings()
    assert Limits(nodes=s.max_nodes, edges=s.max_edges, bytes_max=s.max_graph_bytes, params_bytes=s.max_params_bytes) == DEFAULT_LIMITS


@pytest.mark.parametrize(
    "value",
    ["foo", "", "localhost:6379", "http://localhost", "redis:foo", "redis://host:port/0", "unix://", "redis+socket:///", "amqp://host"],
)
def test_a_url_that_is_no_redis_is_refused_with_what_is_taken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_REDIS_URL", value)
    with pytest.raises(
        HeadgateError, match=rf"^HEADGATE_REDIS_URL={re.escape(value)} does not fit: write redis://[^\n]* rediss://[^\n]* unix:"
    ):
        Settings.load()


@pytest.mark.parametrize(
    "value",
    [
        "redis://h",
        "redis:///1",
        "redis://:pw@h:6379/1",
        "rediss://u:p@h/0",
        "unix:///r.sock?db=1",
        "redis+socket://:pw@/r.sock?virtual_host=0",
    ],
)
def test_a_url_of_a_redis_is_taken_as_it_is(value: str) -> None:
    assert Settings(redis_url=value).redis_url == value


@pytest.mark.parametrize("value", ["foo", "", "mysql://h/n", "nonsense://h", "sqlite+nonsense:///x", "postgresql://h:port/n"])
def test_a_malformed_database_url_is_refused_with_what_is_taken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_DATABASE_URL", value)
    with pytest.raises(
        HeadgateError, match=rf"^HEADGATE_DATABASE_URL={re.escape(value)} does not fit: write [^\n]*sqlite:[^\n]*postgresql"
    ):
        Settings.load()


def test_a_refused_url_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_REDIS_URL", "redis://me:secret@host:port/0")
    with pytest.raises(HeadgateError, match=r"redis://\*\*\*@host:port/0 does not fit") as caught:
        Settings.load()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("inside", ["", "deeper/home"])
def test_a_home_that_is_a_file_is_named_in_one_sentence(inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("HEADGATE_HOME", str(file / inside))
    with pytest.raises(
        HeadgateError, match=rf"^HEADGATE_HOME={re.escape(str(file / inside))} does not fit: .*file is not a directory; [^\n]+$"
    ):
        Settings.load()


def test_a_home_that_became_a_file_is_unavailable(home: Path) -> None:
    settings = Settings(home=home)
    home.rmdir()
    home.write_text("")
    with pytest.raises(Unavailable, match=rf"^{re.escape(str(home))} cannot be used as HEADGATE_HOME: Not a directory$"):
        settings.stack()


def test_task_modules_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_TASKS", "pipeline, shop.tasks,")
    assert Settings.load().tasks == ("pipeline", "shop.tasks")


def test_pools_are_separated_by_commas_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().pools == ("default",)
    Settings.forget()
    monkeypatch.setenv("HEADGATE_POOLS", "gpu, default,gpu")
    assert Settings.load().pools == ("gpu", "default")
    assert Settings.load().environment()["HEADGATE_POOLS"] == "gpu,default"


@pytest.mark.parametrize(
    ("value", "why"), [("GPU", "'GPU' is not the name of a pool; use 1 to 63 lower-case"), (",", "name at least one pool")]
)
def test_what_is_no_pool_is_named_in_one_sentence(value: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_POOLS", value)
    with pytest.raises(HeadgateError, match=rf"^HEADGATE_POOLS={value} does not fit: {why}[^\n]*$"):
        Settings.load()


def test_a_file_given_as_task_module_is_answered_with_the_modules_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_TASKS", "shop/pipeline.py")
    with pytest.raises(HeadgateError, match=r"name the module, shop\.pipeline$"):
        Settings.load()


def test_without_stack_or_url_the_refusal_says_how_to_get_one(home: Path) -> None:
    with pytest.raises(Unavailable, match=r"no Headgate stack runs in .*: start one with `headgate up`, or set HEADGATE_REDIS_URL"):
        Settings(home=home).resolved_redis_url()


def test_the_file_of_a_killed_stack_does_not_count(home: Path) -> None:
    settings = Settings(home=home)
    settings.stack_file.write_text(json.dumps({"redis_url": "redis+socket:///tmp/gone/r.sock?virtual_host=0"}))
    settings.lock_file.write_text("123\n")
    with pytest.raises(Unavailable):
        settings.resolved_redis_url()


def test_the_file_of_a_living_stack_is_followed(home: Path) -> None:
    settings = Settings(home=home)
    settings.stack_file.write_text(json.dumps({"redis_url": "redis+socket:///tmp/hg-1/r.sock?virtual_host=0"}))
    with settings.lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert settings.resolved_redis_url() == "redis+socket:///tmp/hg-1/r.sock?virtual_host=0"
        assert settings.resolved_client_url() == "unix:///tmp/hg-1/r.sock?db=0"


def test_children_load_the_same_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(home=home, max_nodes=7, tasks="a,b.c")
    for name, value in given.environment(redis_url="redis://localhost/3").items():
        monkeypatch.setenv(name, value)
    Settings.forget()
    assert Settings.load() == given.model_copy(update={"redis_url": "redis://localhost/3"})


def test_a_child_gets_home_as_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings().environment() == {"HEADGATE_HOME": str(tmp_path / ".headgate")}


@pytest.mark.parametrize(
    ("kombu", "client"),
    [
        ("redis+socket:///tmp/hg-1/r.sock?virtual_host=2", "unix:///tmp/hg-1/r.sock?db=2"),
        ("redis+socket://:pw@/tmp/r.sock?virtual_host=0", "unix://:pw@/tmp/r.sock?db=0"),
        ("redis://localhost:6379/1", "redis://localhost:6379/1"),
    ],
)
def test_the_two_spellings_of_a_redis_translate_both_ways(kombu: str, client: str) -> None:
    assert for_client(kombu) == client
    assert for_kombu(client) == kombu

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from orchestrator.embedded import RedisServer, Stack
from orchestrator.embedded.commands import Commands
from orchestrator.embedded.readiness import kernel_ready, said_ready
from orchestrator.embedded.redis_server import find_binary
from orchestrator.settings import Settings
from tenancy.errors import Unavailable

HERE = Path(__file__).resolve().parent

# A worker as the stack sees it: a main process and a pool process that ignores being asked to end.
WORKER = """
import os, signal, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True: time.sleep(60)
print("worker ready.")
while True: time.sleep(60)
"""
IDLE = "import time\nwhile True: time.sleep(60)"


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


def idle_commands(worker: str = WORKER) -> Commands:
    return Commands(
        recorder=lambda: python(IDLE),
        worker=lambda index, slots: python(worker),
        system=lambda: python(IDLE),
        beat=lambda file: python(IDLE),
        console=lambda port: python(IDLE),
    )


REDIS_OWNER = """
import sys, time
from pathlib import Path
from orchestrator.embedded import RedisServer
server = RedisServer(Path(sys.argv[1]))
server.start()
print(server.pid, server.socket.parent, flush=True)
time.sleep(600)
"""
STACK_OWNER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_embedded import idle_commands, said_ready
from orchestrator.embedded import Stack
from orchestrator.settings import Settings
stack = Stack(Settings(home=sys.argv[1]), commands=idle_commands(), ready=said_ready)
stack.start()
print(*stack.pids().values(), flush=True)
time.sleep(600)
"""
UP_OWNER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_embedded import idle_commands, said_ready
from orchestrator.embedded import run_up
from orchestrator.settings import Settings
run_up(Settings(home=sys.argv[1]), 1, [], False, lambda line: print(line, flush=True), commands=idle_commands(), ready=said_ready)
"""
Owner = Callable[[str, Path], subprocess.Popen[str]]


def until(predicate: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether `pid` runs; a process that is dead and not yet reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def members(group: int) -> list[int]:
    """The running processes of a process group."""
    return [pid for pid in psutil.pids() if group_of(pid) == group and lives(pid)]


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """Starts a python program in a process of its own, to be killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, directory: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", program, directory, HERE], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def watchdog_of(pid: int) -> int:
    return next(child.pid for child in psutil.Process(pid).children() if any("tether.py" in word for word in child.cmdline()))


def bundled(monkeypatch: pytest.MonkeyPatch) -> str:
    """The redis-server that is found when PATH has none."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        return find_binary()


# Redis


def test_redis_listens_on_a_private_unix_socket_only(redis_server: RedisServer) -> None:
    assert stat.S_IMODE(redis_server.socket.parent.stat().st_mode) == 0o700
    assert len(os.fsencode(redis_server.socket)) < 108
    with redis.Redis.from_url(redis_server.client_url) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_redis_keeps_data_and_socket_over_kill_and_restart(redis_server: RedisServer) -> None:
    before = redis_server.url
    with redis.Redis.from_url(redis_server.client_url) as client:
        client.set("kept", "1")
        redis_server.kill()
        assert not redis_server.alive()
        redis_server.restart()
        assert redis_server.url == before
        assert client.get("kept") == b"1"


def test_stopped_redis_leaves_neither_process_nor_directory(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    pid, private = server.pid, server.socket.parent
    server.stop()
    assert not lives(pid)
    assert not private.exists()


def test_redis_ends_with_its_killed_owner_and_its_directory_goes(tmp_path: Path, owner: Owner) -> None:
    process = owner(REDIS_OWNER, tmp_path / "redis")
    assert process.stdout is not None
    pid, private = process.stdout.readline().split()
    process.kill()
    until(lambda: not lives(int(pid)) and not Path(private).exists())


def test_the_next_start_clears_what_owner_and_watchdog_left_when_both_were_killed(tmp_path: Path, owner: Owner) -> None:
    process = owner(REDIS_OWNER, tmp_path / "redis")
    assert process.stdout is not None
    pid, private = process.stdout.readline().split()
    os.kill(watchdog_of(process.pid), signal.SIGKILL)
    process.kill()
    process.wait()
    assert lives(int(pid))
    server = RedisServer(tmp_path / "redis")
    server.start()
    assert not lives(int(pid))
    assert not Path(private).exists()
    server.stop()


def test_data_of_a_newer_redis_is_not_opened_with_an_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(Unavailable, match="was written by Redis 7 or newer"):
        RedisServer(tmp_path, binary=bundled(monkeypatch)).start()


def test_the_bundled_redis_serves_where_none_is_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = RedisServer(tmp_path / "redis", binary=bundled(monkeypatch))
    server.start()
    with redis.Redis.from_url(server.client_url) as client:
        assert client.info("server")["redis_version"].startswith("6.2")
    server.stop()


def test_a_redis_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"this is no log of Redis\r\n")
    with pytest.raises(Unavailable, match=r"redis-server ended at once: .*see .*redis\.log"):
        RedisServer(tmp_path, binary=bundled(monkeypatch)).start()


# The stack


def test_a_stack_writes_where_it_is_and_leaves_nothing_behind(home: Path) -> None:
    settings = Settings(home=home)
    with Stack(settings, workers=2, commands=idle_commands(), ready=said_ready) as stack:
        found = json.loads(settings.stack_file.read_text())
        assert list(found["pids"]) == ["stack", "redis", "recorder", "w1", "w2", "system", "beat", "console"]
        assert settings.resolved_redis_url() == found["redis_url"] == stack.redis_url
        assert found["database_url"] == f"sqlite:///{home / 'headgate.db'}"
        assert found["console_url"].startswith("http://127.0.0.1:")
        groups = list(stack.pids().values())
        private = Path(found["redis_url"].removeprefix("redis+socket://").partition("?")[0]).parent
        pools = [pid for name, pid in stack.pids().items() if name.startswith("w")]
        assert [len(members(pid)) for pid in pools] == [2, 2]
    assert not any(members(group) for group in groups)
    assert not private.exists()
    assert not settings.stack_file.exists()
    with pytest.raises(Unavailable):
        settings.resolved_redis_url()


def test_workers_start_when_the_recorder_has_opened_the_epoch_and_are_ready_when_enrolled(home: Path) -> None:
    recorder = (
        "import os, time\nfrom orchestrator.settings import Settings\nimport redis\n"
        "client = redis.Redis.from_url(Settings.load().resolved_client_url())\n"
        "client.hset('hg1:epoch', mapping={'number': 1, 'server': client.info('server')['run_id']})\ntime.sleep(600)"
    )
    worker = (
        "import os, time\nfrom orchestrator.settings import Settings\nimport redis\n"
        "client = redis.Redis.from_url(Settings.load().resolved_client_url())\nassert client.exists('hg1:epoch')\n"
        "client.zadd('hg1:incarnations', {f'some.host.{os.getpid()}.0a1b2c3d': 1})\ntime.sleep(600)"
    )
    commands = Commands(recorder=lambda: python(recorder), worker=lambda index, slots: python(worker))
    with Stack(Settings(home=home), workers=2, beat=False, console=False, commands=commands) as stack:
        with redis.Redis.from_url(stack.client_url) as client:
            assert all(kernel_ready(stack.child(name), client) for name in ("recorder", "w1", "w2"))
            assert not kernel_ready(stack.child("w1"), redis.Redis(unix_socket_path=str(home / "none")))
        assert stack.console_url is None


def test_a_second_stack_on_the_same_home_is_refused_and_the_first_goes_on(home: Path) -> None:
    settings = Settings(home=home)
    with Stack(settings, workers=1, commands=idle_commands(), ready=said_ready) as first:
        with pytest.raises(Unavailable, match=rf"^a Headgate stack \(pid {os.getpid()}\) already runs in .*$"):
            Stack(settings, commands=idle_commands(), ready=said_ready).start()
        assert settings.resolved_redis_url() == first.redis_url
        with redis.Redis.from_url(first.client_url) as client:
            assert client.ping()


def test_nothing_of_a_killed_stack_is_left_and_its_home_is_free_again(home: Path, owner: Owner) -> None:
    process = owner(STACK_OWNER, home)
    assert process.stdout is not None
    groups = [int(pid) for pid in process.stdout.readline().split()]
    assert sum(len(members(group)) for group in groups) == 9  # 7 children, 2 of them with a pool process
    process.kill()
    process.wait()
    with Stack(Settings(home=home), workers=1, commands=idle_commands(), ready=said_ready):
        # The lock is free only once the watchdog has ended everything.
        assert not any(members(group) for group in groups)


def test_a_killed_worker_takes_its_pool_along_and_is_started_again(home: Path) -> None:
    told: list[str] = []
    settings = Settings(home=home)
    with Stack(settings, workers=2, commands=idle_commands(), ready=said_ready, report=told.append) as stack:
        pid = stack.kill_worker(2)
        until(lambda: stack.pids().get("w2") not in (None, pid))
        assert not members(pid)
        until(lambda: len(told) >= 2)
        assert told[0].startswith("w2 was ended by SIGKILL, starts again in 0.25 s")
        until(lambda: json.loads(settings.stack_file.read_text())["pids"]["w2"] == stack.pids()["w2"])


def test_a_worker_killed_for_good_stays_away_and_the_others_stay(home: Path) -> None:
    told: list[str] = []
    with Stack(Settings(home=home), workers=2, commands=idle_commands(), ready=said_ready, report=told.append) as stack:
        other = stack.pids()["w1"]
        pid = stack.kill_worker(2, restart=False)
        until(lambda: told)
        assert not members(pid)
        assert "starts again" not in told[0]
        assert stack.pids()["w1"] == other
        assert "w2" not in stack.pids()


def test_a_redis_that_was_killed_comes_back_on_its_socket(home: Path) -> None:
    told: list[str] = []
    with Stack(Settings(home=home), workers=1, commands=idle_commands(), ready=said_ready, report=told.append) as stack:
        os.kill(stack.pids()["redis"], signal.SIGKILL)
        until(lambda: told)
        assert told[0] == f"redis ended unexpectedly and was started again (pid {stack.pids()['redis']})"
        with redis.Redis.from_url(stack.client_url) as client:
            assert client.ping()


def test_a_worker_that_ends_while_starting_is_told_with_its_last_words(home: Path) -> None:
    broken = idle_commands("raise SystemExit('no module named pipeline')")
    with pytest.raises(Unavailable, match=r"^w1 ended while starting: no module named pipeline \(see .*w1\.log\)$"):
        Stack(Settings(home=home), commands=broken, ready=said_ready).start()
    with pytest.raises(Unavailable):
        Settings(home=home).resolved_redis_url()
    with Stack(Settings(home=home), workers=1, commands=idle_commands(), ready=said_ready):
        pass


def test_a_changed_task_module_makes_the_workers_start_anew(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "pipeline.py"
    source.write_text("first = 1\n")
    told: list[str] = []
    with Stack(
        Settings(home=home), workers=1, tasks=["pipeline"], reload=True, commands=idle_commands(), ready=said_ready, report=told.append
    ) as stack:
        pid, recorder = stack.pids()["w1"], stack.pids()["recorder"]
        source.write_text("first = 1\nsecond = 2\n")
        until(lambda: stack.pids().get("w1") not in (None, pid))
        until(lambda: told)
        assert told[0] == "pipeline.py changed, the workers start anew"
        assert stack.pids()["recorder"] == recorder


def test_a_worker_that_ends_after_a_change_is_told_with_its_last_words(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "pipeline.py"
    source.write_text("first = 1\n")
    reads = "import time\ncompile(open('pipeline.py').read(), 'pipeline.py', 'exec')\nprint('w ready.', flush=True)\ntime.sleep(600)"
    told: list[str] = []
    commands = Commands(recorder=lambda: python("import time; time.sleep(600)"), worker=lambda index, slots: python(reads))
    with Stack(
        Settings(home=home),
        workers=1,
        tasks=["pipeline"],
        beat=False,
        console=False,
        reload=True,
        commands=commands,
        ready=said_ready,
        report=told.append,
    ):
        source.write_text("def broken(:\n")
        until(lambda: any("ended with code" in sentence for sentence in told))
    sentence = next(sentence for sentence in told if "ended with code" in sentence)
    assert re.match(r"^w1 ended with code 1, starts again in 0\.25 s: SyntaxError: .* \(see .*w1\.log\)$", sentence), sentence


def test_children_get_the_stacks_settings_and_none_of_celerys_variables(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere/0")
    shows = "import json, os, time\nprint(json.dumps(dict(os.environ)), 'ready. ready.', flush=True)\ntime.sleep(600)"
    with Stack(Settings(home=home, max_nodes=77), workers=1, tasks=["pipeline"], commands=idle_commands(shows), ready=said_ready) as stack:
        seen = json.loads(stack.child("w1").said().partition(" ready.")[0].removesuffix(" ready."))
        ours = {name: value for name, value in seen.items() if name.startswith(("HEADGATE_", "CELERY_"))}
        assert ours == {
            "HEADGATE_HOME": str(home),
            "HEADGATE_MAX_NODES": "77",
            "HEADGATE_REDIS_URL": stack.redis_url,
            "HEADGATE_TASKS": "pipeline",
        }


def test_the_pool_of_a_killed_celery_worker_ends_with_it(home: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text("import os\nfrom celery import Celery\napp = Celery(broker=os.environ['HEADGATE_REDIS_URL'])\n")
    celery = (sys.executable, "-m", "celery", "--workdir", str(tmp_path), "-A", "tiny", "worker", "-c", "2", "--loglevel=INFO")
    commands = Commands(recorder=lambda: python(IDLE), worker=lambda index, slots: (*celery, "-n", f"w{index}@%h"))
    with Stack(Settings(home=home), workers=1, beat=False, console=False, commands=commands, ready=said_ready) as stack:
        until(lambda: len(members(stack.pids()["w1"])) == 3)
        pid = stack.kill_worker(1, restart=False)
        until(lambda: not members(pid))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_says_where_everything_is_and_a_signal_ends_all_of_it(home: Path, owner: Owner, number: signal.Signals) -> None:
    process = owner(UP_OWNER, home)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    assert [line.split()[0] for line in lines] == ["home", "redis", "database", "console", "logs", "pids"]
    groups = list(json.loads(Settings(home=home).stack_file.read_text())["pids"].values())[1:]
    process.send_signal(number)
    assert process.wait(30) == 0
    assert process.stdout.read().splitlines()[-1] == "stopped"
    assert not any(members(group) for group in groups)
    assert not Settings(home=home).stack_file.exists()

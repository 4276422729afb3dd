"""The command line against a running stack, and without one: what is printed where, and the exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from running import until
from terminal import Terminal, end

WORK = """
import time
from orchestrator import dag, task

@task
def work(i: int, s: float = 0.0) -> int:
    time.sleep(s)
    return i

@task
def bad(i: int) -> int: raise ValueError(f"no {i}, and a second line:\\n...")

@task
def total(numbers: list[int]) -> int: return sum(numbers)

@dag
def fan(n: int, s: float = 0.0) -> int: return total([work(i, s) for i in range(n)])

@dag
def fails() -> int: return total([bad.options(attempts=1)(7), work(2)])

@dag
def two() -> None:
    work(1)
    work(2)

@dag
def dear() -> int: return work.options(estimate={"llm": 5_000})(1)
"""
OTHER = "from orchestrator import dag, task\n@task\ndef lone() -> int: return 1\n@dag\ndef other() -> int: return lone()\n"
RUN = re.compile(r"run ([0-9a-z]{26})")
pytestmark = pytest.mark.timeout(300)


def project(directory: Path) -> Terminal:
    (directory / "work.py").write_text(WORK)
    (directory / "other.py").write_text(OTHER)
    return Terminal(directory, directory / "home")


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    """A directory whose stack serves the tasks of work.py."""
    with tempfile.TemporaryDirectory(prefix="hgcli") as name:
        here = project(Path(name))
        with here.up("--tasks", "work"):
            yield here


@pytest.fixture
def alone(tmp_path: Path) -> Terminal:
    """A directory without a stack."""
    return project(tmp_path)


def on_a_screen(terminal: Terminal, *words: str, when: bytes, do: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str, str]:
    """Run `headgate` with its stderr on a terminal and `do` something once `when` is seen; return code, stdout and the screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = terminal.start(["headgate", *words], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen, done, deadline = b"", False, time.monotonic() + 90
    try:
        while time.monotonic() < deadline:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: nobody holds the other end any more
                break
            if not piece:
                break
            seen += piece
            if not done and when in seen:
                do(process)
                done = True
        assert process.stdout is not None
        out = process.stdout.read()
        return process.wait(30), out, seen.decode()
    finally:
        os.close(ours)
        end(process)


def test_run_prints_the_result_on_stdout_and_what_goes_on_on_stderr(terminal: Terminal) -> None:
    done = terminal.headgate("run", "work:fan", "n=4")
    assert (done.code, done.out) == (0, "6\n")
    first, last = done.err.splitlines()
    assert re.fullmatch(r"run [0-9a-z]{26} of fan submitted", first)
    assert re.match(r"run [0-9a-z]{26} succeeded after .*, cost 0", last)


def test_run_json_is_what_show_json_prints(terminal: Terminal) -> None:
    done = terminal.headgate("run", "work:fan", "n=2", "--json")
    assert done.code == 0
    shown = terminal.headgate("show", done.json["run_id"], "--json")
    assert shown.json == done.json
    assert {"run_id", "outcome", "tenant", "cost_micros", "nodes"} <= done.json.keys()
    wanted = {"id", "outcome", "attempt", "worker", "queued_at", "started_at", "finished_at", "cost"}
    assert all(wanted <= node.keys() for node in done.json["nodes"])
    assert all(isinstance(node["started_at"], float) for node in done.json["nodes"])


def test_a_failed_run_is_code_1_and_says_which_node_and_why(terminal: Terminal) -> None:
    done = terminal.headgate("run", "work:fails")
    assert (done.code, done.out) == (1, "")
    assert "  bad: failed: ValueError: no 7, and a second line:\n" in done.err
    assert "Traceback" not in done.err
    assert terminal.headgate("run", "work:fails", "--json").json["outcome"] == "failed"


def test_a_graph_with_several_ends_succeeds_without_a_result(terminal: Terminal) -> None:
    done = terminal.headgate("run", "work:two")
    assert (done.code, done.out) == (0, "")
    assert "ends in 2 nodes" in done.err


def test_a_timeout_is_code_124_a_cancelled_run_code_3_and_watching_resumes(terminal: Terminal) -> None:
    late = terminal.headgate("run", "work:fan", "n=300", "s=0.5", "--timeout", "0.3")
    assert (late.code, late.out) == (124, "")
    found = RUN.search(late.err)
    assert found is not None
    assert f"headgate watch {found[1]}" in late.err
    cancelled = terminal.headgate("cancel", found[1], "--reason", "a test", "--by", "me", "--json")
    assert (cancelled.code, cancelled.json) == (0, {"run_id": found[1], "cancelled": True})
    watched = terminal.headgate("watch", found[1], "--json")
    assert (watched.code, watched.json["outcome"], watched.json["reason"]) == (3, "cancelled", "a test")
    assert terminal.headgate("cancel", found[1]).out == f"run {found[1]} had ended before\n"


def test_cancelling_says_what_still_runs(terminal: Terminal) -> None:
    run_id = terminal.headgate("submit", "work:fan", "n=1", "s=30").out.strip()
    until(lambda: any(node["state"] == "running" for node in terminal.headgate("show", run_id, "--json").json["nodes"]))
    assert terminal.headgate("cancel", run_id).out == f"run {run_id} is being cancelled; 1 running node ends first\n"
    assert terminal.headgate("watch", run_id).code == 3


def test_a_budget_that_covers_nothing_is_code_4_and_an_unknown_tenant_code_2(terminal: Terminal) -> None:
    refused = terminal.headgate("run", "work:dear", "--budget", "0.000001")
    assert (refused.code, refused.out) == (4, "")
    assert "the budget of 0.000001 does not cover the run" in refused.err
    unknown = terminal.headgate("run", "work:two", "--tenant", "nobody")
    assert unknown.code == 2
    assert "create it with `headgate tenant create nobody`" in unknown.err


def test_a_run_that_nobody_serves_is_held_and_says_the_remedy(terminal: Terminal) -> None:
    done = terminal.headgate("run", "other:other", "--timeout", "3")
    assert done.code == 124
    assert "no live worker serves other.lone; start one with `headgate up --tasks other`" in done.err
    assert "stop it first, its pid is " in done.err
    assert "held (worker)" in terminal.headgate("runs", "--status", "held").out
    assert terminal.headgate("cancel", "latest").code == 0
    assert terminal.headgate("watch", "latest").code == 3
    assert terminal.headgate("runs", "--status", "held", "--json").json == []


def test_the_same_key_gives_the_same_run_and_another_graph_is_refused(terminal: Terminal) -> None:
    ids = {terminal.headgate("submit", "work:two", "--key", "k").out for _ in range(2)}
    assert len(ids) == 1
    assert terminal.headgate("submit", "work:two", "--key", "k", "--json").json["run_id"] == ids.pop().strip()
    other = terminal.headgate("submit", "work:fails", "--key", "k")
    assert other.code == 2
    assert "use another key" in other.err


def test_tenants_are_created_once_listed_and_shown(terminal: Terminal) -> None:
    made = terminal.headgate("tenant", "create", "acme", "--limit-per-day", "5.5", "max_concurrent_runs=3", "--json")
    assert (made.code, made.json["policy"]["limit_per_day_micros"], made.json["policy"]["max_concurrent_runs"]) == (0, 5_500_000, 3)
    assert terminal.headgate("tenant", "create", "acme").code == 2
    assert terminal.headgate("tenant", "show", "acme", "--json").json == made.json
    shown = terminal.headgate("tenant", "show", "acme").out
    assert "limit_per_day_micros" in shown
    assert "0 running, 0 waiting" in shown
    assert {"acme", "default"} <= {each["id"] for each in terminal.headgate("tenant", "list", "--json").json}
    wrong = terminal.headgate("tenant", "create", "beta", "weight=0")
    assert wrong.code == 2
    assert "weight" in wrong.err


def test_a_tenant_is_changed_suspended_forked_and_closed_and_its_history_says_by_whom(terminal: Terminal) -> None:
    assert terminal.headgate("tenant", "create", "birch", "can_fork=true", "pool=gpu").out == "tenant birch created\n"
    changed = terminal.headgate("tenant", "set", "birch", "weight=3", "pool=null", "--reason", "bigger", "--by", "ann")
    assert (changed.code, sorted(changed.out.splitlines())) == (0, ["pool: gpu -> null", "weight: 1 -> 3"])
    stale = terminal.headgate("tenant", "set", "birch", "--limit-per-day", "2.5", "--version", "1")
    assert (stale.code, "has version 2 by now" in stale.err) == (2, True)
    assert terminal.headgate("tenant", "fork", "birch", "cedar", "--json").json["policy"]["weight"] == 3
    assert terminal.headgate("tenant", "suspend", "birch").out == "tenant birch is suspended\n"
    assert "suspended and takes no new runs" in terminal.headgate("submit", "work:two", "--tenant", "birch").err
    assert terminal.headgate("tenant", "resume", "birch").out == "tenant birch is active\n"
    closed = {"tenant": "cedar", "status": "closed", "changed": True, "live_runs": 0}
    assert terminal.headgate("tenant", "close", "cedar", "--json").json == closed
    history = terminal.headgate("tenant", "history", "birch").out
    assert re.search(r"ann +policy.changed +weight: 1 -> 3 +bigger", history)
    assert "status: active -> suspended" in history
    assert terminal.headgate("tenant", "history", "nobody", "--json").json["error"] == "there is no tenant 'nobody'"


def test_pauses_are_listed_with_by_whom_since_when_and_why(terminal: Terminal) -> None:
    assert terminal.headgate("pause", "tenant", "default", "--reason", "a look", "--by", "ann").out == "tenant default is paused\n"
    run_id = terminal.headgate("submit", "work:two").out.strip()
    assert terminal.headgate("pause", "run", run_id[:20], "--json").json == {"scope": f"run:{run_id}.1", "paused": True, "changed": True}
    listed = terminal.headgate("pause").out.splitlines()
    assert re.fullmatch(r"tenant default +[-0-9: ]{19}  ann +a look", listed[1])
    assert listed[2].startswith(f"run {run_id}")
    assert "by ann: a look" in terminal.headgate("tenant", "show", "default").out
    assert terminal.headgate("resume", "tenant", "default").out == "tenant default goes on\n"
    assert {node["state"] for node in terminal.headgate("show", run_id, "--json").json["nodes"]} <= {"due", "pending"}
    assert terminal.headgate("resume", "run", run_id).code == 0
    assert terminal.headgate("watch", run_id).code == 0
    assert terminal.headgate("pause").out == "nothing is paused\n"


def test_a_second_stack_in_the_same_home_says_so(terminal: Terminal) -> None:
    done = terminal.headgate("up")
    assert done.code == 69
    assert "already runs in" in done.err


def test_sweep_says_what_it_mended(terminal: Terminal) -> None:
    said = {"reclaimed", "started", "admitted", "published", "settled", "revoked", "halted", "stood_by", "forgotten"}
    assert terminal.headgate("sweep", "--json").json.keys() == said


def test_on_a_screen_the_board_moves_and_ctrl_c_ends_only_the_watching(terminal: Terminal) -> None:
    code, out, screen = on_a_screen(
        *(terminal, "run", "work:fan", "n=12", "s=1.5"), when=b"work.work", do=lambda process: process.send_signal(signal.SIGINT)
    )
    assert (code, out) == (130, "")
    found = RUN.search(screen)
    assert found is not None
    for heading in ("task", "done", "running", "failed", "left out", "time", "cost"):
        assert heading in screen
    assert f"headgate watch {found[1]}" in screen
    watched = terminal.headgate("watch", found[1])
    assert (watched.code, watched.out) == (0, "66\n")


def test_run_starts_a_stack_for_the_duration_and_leaves_only_the_record(alone: Terminal) -> None:
    done = alone.headgate("run", "work:fan", "n=3")
    assert (done.code, done.out) == (0, "3\n")
    assert "starting one for this command" in done.err
    assert processes_of(alone) == []
    assert alone.headgate("run", "work:nothing").code == 2
    assert [run["outcome"] for run in alone.headgate("runs", "--json").json] == ["succeeded"]


def test_a_run_left_by_ctrl_c_goes_on_with_the_next_stack(alone: Terminal) -> None:
    code, _, screen = on_a_screen(
        *(alone, "run", "work:fan", "n=8", "s=2"), when=b"work.work", do=lambda process: process.send_signal(signal.SIGINT)
    )
    assert code == 130
    assert "headgate up --tasks work`" in screen
    assert processes_of(alone) == []
    away = alone.headgate("watch", "latest")
    assert (away.code, away.out) == (69, "")
    with alone.up("--tasks", "work"):
        watched = alone.headgate("watch", "latest")
    assert (watched.code, watched.out) == (0, "28\n")


def test_a_graph_with_problems_starts_no_stack(alone: Terminal) -> None:
    (alone.directory / "wrong.json").write_text(json.dumps({"name": "w", "nodes": [{"id": "a", "task": "work.work", "params": {"j": 1}}]}))
    done = alone.headgate("run", "wrong.json", "--tasks", "work")
    assert done.code == 2
    assert "node 'a'" in done.err
    assert not alone.home.exists()


def test_celery_without_a_stack_says_how_to_start_one(alone: Terminal) -> None:
    done = alone.type("celery", "-A", "orchestrator.app", "worker")
    sentence = f"headgate: no Headgate stack runs in {alone.home}: start one with `headgate up`, or set HEADGATE_REDIS_URL\n"
    assert (done.code, done.err) == (69, sentence)


def processes_of(terminal: Terminal) -> list[str]:
    """The processes that work for a home."""
    home = str(terminal.home)
    found = []
    for process in psutil.process_iter():
        try:
            if home in process.environ().get("HEADGATE_HOME", "") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found

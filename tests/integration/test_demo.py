from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from running import until

TENANTS = ("acme", "birch", "cedar")
PROGRAM = """
import sys
from orchestrator.cli.demo import demo
from orchestrator.settings import Settings
sys.exit(demo(Settings.load(), lambda line: print(line, flush=True)))
"""


class Demo:
    """The demo in a process of its own, whose temporary files all lie in `temporary`; a mark tells its children and theirs."""

    def __init__(self, temporary: Path, **environment: str) -> None:
        self.temporary = temporary
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "TMPDIR": str(temporary), "DEMO_MARK": self.mark, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def lines_up_to(self, text: str) -> list[str]:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                return lines
        pytest.fail(f"the demo ended before it said {text!r}:\n{''.join(lines)}")

    def left(self) -> list[str]:
        """What is left of it: files, and processes that have inherited its environment."""
        found = [str(path) for path in self.temporary.iterdir()]
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("DEMO_MARK") == self.mark:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    # Short: a unix socket lies in it.
    path = Path(tempfile.mkdtemp(prefix="hgd"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def demo(temporary: Path) -> Iterator[Demo]:
    playing = Demo(temporary)
    yield playing
    playing.process.kill()
    playing.process.communicate()
    until(lambda: not playing.left())


def test_the_demo_shows_the_main_job_and_three_nights_and_leaves_nothing(demo: Demo) -> None:
    began = time.monotonic()
    said, _ = demo.process.communicate(timeout=110)
    took_s = time.monotonic() - began
    assert demo.process.returncode == 0, said
    assert demo.left() == []
    assert took_s < 100, said

    for tenant in TENANTS:
        told = said[said.index(f"\n{tenant}: 40 documents") :].split("\n\n")[0]
        assert re.search(r"recall@5 [01]\.\d\d, MRR [01]\.\d\d over \d+ questions", told)
        assert told.count("  Q: ") == told.count("  A: ") == told.count("     from ") == 3
        assert re.search(r"cost 0\.\d{6} EUR: llm|cost 0\.\d{6} EUR: retrieval", told)
    short = said[said.index("\nacme: 40 documents") :].split("\n\n")[0]
    assert "  given up: embed as 'hashed', evaluate as 'plain'\n" in short
    paid = re.search(r"  7 of 7 required nodes done, for (0\.\d{6}) of (0\.\d{6})\n", short)
    assert paid is not None
    assert float(paid[1]) <= float(paid[2])
    assert re.search(r"\n  node embed succeeded as its variant 'hashed'.*\n  <- decision \d+ was to run it as 'hashed'", short)
    assert "\n  <- it was admitted with 0." in short
    assert re.search(r"recall@5 of what it retrieved is [01]\.\d\d, and [01]\.\d\d with all the money", short)
    killed = re.findall(r"^(headgate|stock Celery): worker (\d) killed \(pid \d+\), which held member-\d\d", said, re.MULTILINE)
    assert sorted(name for name, _ in killed) == ["headgate", "stock Celery"]
    assert "stock Celery: still waiting after 10 s" in said
    assert "its default redelivers after an hour" in said.replace("\n", " ")
    assert re.search(r"^won: the join ran \d+\.\d s after the kill", said, re.MULTILINE)
    executions = re.search(r"headgate: 20 of 20 members done, in (\d+) executions", said)
    assert executions is not None
    assert 21 <= int(executions[1]) <= 22  # a worker of two processes held at most two

    assert re.search(r"^won: birch's node began after \d+\.\d\d s, \d+ of acme's before it; in stock Celery after", said, re.MULTILINE)
    assert re.search(
        r"^won: headgate spent 0\.09\d+ of 0\.100000; check-then-charge 0\.\d+ of 0\.100000, 0\.\d+ too much", said, re.MULTILINE
    )


@pytest.mark.slow
def test_with_json_the_figures_are_one_object_on_standard_output(temporary: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from orchestrator.cli import main; main()", "demo", "--json"],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert [run["tenant"] for run in figures["runs"]] == list(TENANTS)
    for run in figures["runs"]:
        assert 0 < run["recall"] <= 1
        assert 0 < run["mrr"] <= 1
        assert sum(run["cost"].values()) == run["cost_micros"] > 0
    assert [run["outcome"] for run in figures["runs"]] == ["degraded", "succeeded", "succeeded"]
    short = figures["runs"][0]
    assert short["cost_micros"] <= short["budget_micros"] < 0.65 * short["estimate_micros"]
    assert (len(short["explain"]), short["required_done"]) == (3, short["required"])
    assert 0 < short["recall"] <= short["recall_in_full"] + 0.05
    night = figures["join_night"]
    assert night["headgate"]["members_done"] == night["members"] == 20
    assert night["headgate"]["join_after_kill_s"] > 0
    assert night["verdict"] in done.stderr.replace("\n", " ")
    flood = figures["flood_night"]
    assert flood["headgate"]["ahead"] < flood["stock_celery"]["ahead"] <= flood["flood"] == 1000
    bill = figures["bill_night"]
    assert bill["headgate"]["committed_at_most_micros"] <= bill["limit_micros"]
    assert bill["headgate"]["served"] + bill["headgate"]["refused"] == bill["claimants"] == 32
    assert bill["headgate"]["overspent_micros"] == 0 < bill["check_then_charge"]["overspent_micros"]
    assert figures["succeeded"] is True
    assert figures["seconds"] > figures["indexing_s"] > 0


@pytest.mark.slow
def test_a_demo_that_is_told_to_stop_leaves_nothing(demo: Demo) -> None:
    demo.lines_up_to("ready after")
    demo.process.terminate()
    said, _ = demo.process.communicate(timeout=30)
    assert "interrupted" in said
    assert demo.process.returncode == 130
    assert demo.left() == []


def test_a_demo_that_is_killed_in_the_middle_of_the_night_leaves_nothing(demo: Demo) -> None:
    demo.lines_up_to("stock Celery: worker")
    demo.process.kill()
    until(lambda: not demo.left())


@pytest.mark.slow
def test_a_home_that_was_asked_for_is_kept(temporary: Path) -> None:
    home = temporary / "kept"
    playing = Demo(temporary, HEADGATE_HOME=str(home), HEADGATE_REDIS_URL="redis://127.0.0.1:1/0")
    try:
        playing.lines_up_to("ready after")
    finally:
        playing.process.terminate()
        playing.process.communicate(timeout=30)
    assert playing.left() == [str(home)]
    assert (home / "logs" / "w1.log").is_file()

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, insert

from orchestrator.cli import main
from orchestrator.cli.board import Line, lines
from orchestrator.cli.exits import Exit, of_error, of_run
from orchestrator.cli.group import shown
from orchestrator.cli.output import seconds
from orchestrator.cli.reference import find_run
from orchestrator.cli.target import parameters
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.read import NodeView
from tenancy import errors

MODULE = """
from orchestrator import Graph, dag, task

@task(estimate={"llm": 500})
def shout(word: str, times: int = 1) -> str: return word.upper() * times

@dag
def greeting(word: str, times: int = 1) -> str: return shout(word, times)

@dag
def fan(n: int) -> list[str]: return [shout(str(i)) for i in range(n)]

ready = Graph.parse({"name": "ready", "nodes": [{"id": "a", "task": "clitarget.shout", "params": {"word": "x"}}]})

@dag
def faulty() -> str: return shout(str(1 // 0))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module of tasks, which is forgotten afterwards."""
    (tmp_path / "clitarget.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "clitarget", raising=False)
    yield tmp_path
    sys.modules.pop("clitarget", None)


def headgate(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, list(words), input=stdin)


# -- the command as such ------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    heavy = ("celery", "kombu", "redis", "sqlalchemy", "pydantic", "rich", "sklearn")
    code = f"import sys, orchestrator.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_command_says_what_it_does_and_takes_json() -> None:
    names = [
        "demo",
        "up",
        "console",
        "run",
        "submit",
        "plan",
        "schema",
        "runs",
        "show",
        "replay",
        "verify",
        "watch",
        "cancel",
        "rerun",
        "approve",
        "decisions",
        "explain",
        "agent",
        "priority",
        "deadline",
        "audit",
        "sweep",
        "tenant",
        "pause",
        "resume",
        "queues",
        "workers",
        "prices",
        "estimate",
        "whatif",
        "ledger",
        "report",
        "logs",
        "schedule",
        "backfill",
        "budget",
        "top",
        "graph",
        "completion",
        "prune",
        "migrate",
        "trace",
    ]
    assert sorted(names) == main.list_commands(None)  # type: ignore[arg-type]
    of_tenants = ("create", "list", "show", "set", "suspend", "resume", "close", "fork", "history")
    of_queues, of_workers = ("letters", "requeue", "discard"), ("list", "scale", "drain", "wanted")
    of_prices = ("list", "show", "set", "reset", "diff")
    of_ledger = ("adjust", "export", "reprice", "audit")
    of_schedules = ("create", "list", "show", "set", "pause", "resume", "delete")
    groups = {
        "schedule": of_schedules,
        "agent": ("pause", "resume", "status"),
        "tenant": of_tenants,
        "queues": of_queues,
        "workers": of_workers,
        "prices": of_prices,
        "ledger": of_ledger,
        "trace": ("export",),
    }
    for name in (*names, *(f"{group} {verb}" for group, verbs in groups.items() for verb in verbs)):
        shown = headgate(*name.split(), "--help")
        assert shown.exit_code == 0
        assert "--json" in shown.output or name in groups


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    done = headgate("wacth", "latest")
    assert done.exit_code == Exit.USAGE
    assert "there is no command 'wacth'; did you mean 'watch'?" in done.stderr


@pytest.mark.parametrize("words", [("runs",), ("show", "latest"), ("watch", "latest"), ("tenant", "list"), ("pause",)])
def test_without_a_record_there_is_one_sentence(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path / "none"))
    done = headgate(*words)
    assert done.exit_code == Exit.UNAVAILABLE
    assert done.stdout == ""
    assert done.stderr == f"headgate: there is no record in {tmp_path}/none yet: `headgate up` makes one, or set HEADGATE_HOME\n"


@pytest.mark.parametrize(
    "words", [("submit", "x.json"), ("cancel", "latest"), ("sweep",), ("console",), ("tenant", "create", "acme"), ("pause", "platform")]
)
def test_without_a_stack_there_is_one_sentence(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path / "none"))
    done = headgate(*words)
    assert done.exit_code == Exit.UNAVAILABLE
    assert done.stderr == f"headgate: no Headgate stack runs in {tmp_path}/none: start one with `headgate up`, or set HEADGATE_REDIS_URL\n"
    assert not (tmp_path / "none").exists()


def test_a_misspelt_setting_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOEM", "x")
    done = headgate("runs")
    assert (done.exit_code, done.stderr) == (
        Exit.USAGE,
        "headgate: HEADGATE_HOEM is not a setting of Headgate; the nearest is HEADGATE_HOME\n",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "x:y", "--budget", "1e3"), "'1e3' is not an amount in units"),
        (("show", "../etc"), "'../etc' is no id of a run"),
        (("up", "--tasks", "pipeline.py"), "'pipeline.py' is not the name of a module; name the module, pipeline"),
        (("up", "--tasks", "no_such_module_here"), "there is no module 'no_such_module_here'"),
        (("up", "--workers", "65"), "65 is not in the range"),
        (("tenant", "create", "acme", "wieght=2"), "a policy has no field 'wieght'; the nearest is 'weight'"),
        (("tenant", "set", "acme"), "there is nothing to set; write FIELD=VALUE"),
        (("pause", "tenant"), "which tenant? write its id after `tenant`"),
        (("pause", "platform", "acme"), "paused and resumed as a whole"),
        (("pause", "fleet"), "'fleet' is not one of 'platform', 'tenant', 'run'"),
        (("resume",), "say what to resume"),
    ],
)
def test_wrong_words_are_usage_errors(words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = headgate(*words)
    assert done.exit_code == Exit.USAGE
    assert said in done.stderr


@pytest.mark.parametrize("home", ["/proc/x", "file"])
@pytest.mark.parametrize("words", [("up",), ("run", "ready.json")])
def test_a_home_that_cannot_be_is_told_in_a_sentence(
    home: str, words: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "ready.json").write_text('{"name": "r", "nodes": [{"id": "a", "task": "synthetic.noop"}]}')
    (project / "file").write_text("")
    monkeypatch.setenv("HEADGATE_HOME", home)
    done = headgate(*words)
    assert done.exit_code in (Exit.UNAVAILABLE, Exit.USAGE)
    told = done.stderr.splitlines()[-1]
    assert told.startswith("headgate: ")
    assert home in told
    assert "HEADGATE_HOME" in told


@pytest.mark.parametrize("words", [("up",), ("run", "ready.json"), ("submit", "ready.json"), ("sweep",)])
def test_a_redis_url_that_is_none_is_named(words: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "ready.json").write_text('{"name": "r", "nodes": [{"id": "a", "task": "synthetic.noop"}]}')
    monkeypatch.setenv("HEADGATE_HOME", str(project / "home"))
    monkeypatch.setenv("HEADGATE_REDIS_URL", "foo")
    done = headgate(*words)
    assert done.exit_code == Exit.USAGE
    assert "HEADGATE_REDIS_URL=foo" in done.stderr


def test_a_record_that_is_no_database_is_told_without_its_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "headgate.db").write_text("no database " * 20)
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path))
    done = headgate("runs")
    assert done.exit_code == Exit.UNAVAILABLE
    assert done.stderr == "headgate: a service cannot be used (sqlalchemy): file is not a database\n"


def test_with_json_an_error_is_an_object_too(project: Path) -> None:
    (project / "bad.json").write_text('{"name": "b", "nodes": [{"id": "a"}, {"id": "b"}]}')
    done = headgate("plan", "bad.json", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["error"], len(told["problems"])) == (Exit.USAGE, "the graph has 2 problems", 2)
    done = headgate("show", "../etc", "--json")
    assert done.exit_code == Exit.USAGE
    assert "is no id of a run" in json.loads(done.stdout)["error"]


def test_a_refusal_by_a_budget_speaks_in_units() -> None:
    refusal = errors.BudgetRefused("the budget of 1 micros does not cover the run: its required nodes alone cost 30000 micros")
    assert shown(refusal) == "the budget of 0.000001 does not cover the run: its required nodes alone cost 0.03"
    refusal = errors.BudgetRefused("tenant 'a' has committed 5 of 1000000 micros today; raise limit_per_day_micros")
    assert shown(refusal) == "tenant 'a' has committed 0.000005 of 1 today; raise limit_per_day_micros"


# -- targets -------------------------------------------------------------------------------------------------------------


def test_parameters_are_json_where_they_parse_and_text_otherwise() -> None:
    words = ["n=3", "name=war", 'list=[1, "a"]', "flag=true", "text=a=b", 'quoted="7"', "nan=NaN", "empty="]
    assert parameters(words) == {
        "n": 3, "name": "war", "list": [1, "a"], "flag": True, "text": "a=b", "quoted": "7", "nan": "NaN", "empty": "",
    }  # fmt: skip


def test_plan_builds_a_dag_with_its_parameters(project: Path) -> None:
    planned = json.loads(headgate("plan", "clitarget:fan", "n=3", "--json").stdout)
    assert (planned["graph"], planned["nodes"], planned["estimate_micros"], planned["widest_level"]) == ("fan", 3, 1500, 3)


def test_plan_tells_people_the_same_in_words(project: Path) -> None:
    shown = headgate("plan", "clitarget:greeting", "word=7")
    assert "node 'shout': `word` is 7; the task takes str" in shown.stderr  # 7 is JSON, and no text
    shown = headgate("plan", "clitarget:greeting", "word=hello")
    assert shown.exit_code == 0
    for words in ("fragments", "chords", "joins", "critical path", "widest level", "largest message", "carried by canvas"):
        assert words in shown.stdout


def test_plan_reads_a_file_standard_input_and_a_graph_of_a_module(project: Path) -> None:
    text = '{"name": "j", "nodes": [{"id": "a", "task": "synthetic.noop"}, {"id": "b", "task": "synthetic.noop", "after": ["a"]}]}'
    (project / "j.json").write_text(text)
    from_file = headgate("plan", "j.json", "--json")
    assert json.loads(from_file.stdout)["critical_path"] == ["a", "b"]
    assert headgate("plan", "-", "--json", stdin=text).stdout == from_file.stdout
    assert json.loads(headgate("plan", "clitarget:ready", "--json").stdout)["nodes"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clitarget:greetin"], "there is no 'greetin' in clitarget; write clitarget:greeting"),
        (["clitarget:shout"], "'shout' in clitarget is no dag"),
        (["clitarget:fan"], "missing a required argument: 'n'; it takes n: int"),
        (["clitarget:fan", "m=1"], "it takes n: int"),
        (["clitarget:fan", "n"], "'n' is not a parameter; write name=value"),
        (["clitarget:fan", "n=1", "n=2"], "the parameter 'n' is given twice"),
        (["clitarget:ready", "n=1"], "takes no parameters"),
        (["clitarget:faulty"], "ZeroDivisionError: integer division or modulo by zero (clitarget.py, line 16)"),
        (["nowhere_at_all:x"], "there is no module 'nowhere_at_all'"),
        (["broken:x"], "the module 'broken' cannot be imported: SyntaxError"),
        (["lacking:x"], "No module named 'surely_not_installed' (lacking.py, line 2)"),
        (["clitarget.py"], "clitarget.py is Python; for a dag of that module write clitarget:NAME"),
        (["clitarget"], "'clitarget' is neither a graph's JSON file nor module:dag; for a dag of that module write clitarget:NAME"),
        (["ready.json", "n=1"], "name=value parameters are for a module:dag"),
        (["ready.json"], "node 'a': unknown key 'taks'; did you mean 'task'?"),
    ],
)  # fmt: skip
def test_a_wrong_target_is_told_in_a_sentence(words: list[str], said: str, project: Path) -> None:
    (project / "broken.py").write_text("def x(:\n")
    (project / "lacking.py").write_text("\nimport surely_not_installed\n")
    (project / "ready.json").write_text('{"name": "r", "nodes": [{"id": "a", "taks": "synthetic.noop"}]}')
    done = headgate("plan", *words)
    assert done.exit_code == Exit.USAGE
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_graph_file_over_the_limit_is_not_read_whole(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_MAX_GRAPH_BYTES", "100")
    (project / "large.json").write_text(" " * 1_000_000)
    done = headgate("plan", "large.json")
    assert done.exit_code == Exit.USAGE
    assert "100" in done.stderr


def test_a_flood_of_problems_is_cut_on_the_screen(project: Path) -> None:
    (project / "bad.json").write_text(json.dumps({"name": "b", "nodes": [{"id": f"n{i}"} for i in range(300)]}))
    done = headgate("plan", "bad.json")
    assert done.exit_code == Exit.USAGE
    assert "the graph has 300 problems:" in done.stderr
    assert done.stderr.endswith("  ... and 280 more\n")


def test_tasks_that_are_not_known_here_are_named_and_planned_all_the_same(project: Path) -> None:
    (project / "else.json").write_text('{"name": "e", "nodes": [{"id": "a", "task": "elsewhere.work", "estimate": {"llm": 70}}]}')
    done = headgate("plan", "else.json", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["estimate_micros"] == 70
    assert "elsewhere.work" in done.stderr


def test_the_schema_is_json() -> None:
    assert json.loads(headgate("schema").stdout)["properties"].keys() == {"name", "nodes", "labels", "max_parallel", "on_failure"}


# -- exit codes, board, references ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        ("ended", "succeeded", 0),
        ("ended", "degraded", 0),
        ("ended", "failed", 1),
        ("ended", "cancelled", 3),
        ("ended", "terminated_by_cost", 4),
        ("refused", None, 4),
    ],
)
def test_the_end_of_a_run_is_an_exit_code(status: str, outcome: str | None, code: int) -> None:
    assert of_run(status, outcome) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BudgetRefused("x"), 4),
        (errors.RunsLimit("x"), 4),
        (errors.Refused("there is no tenant"), 2),
        (errors.QueueFull("nobody serves it"), 69),
        (errors.Unavailable("x"), 69),
        (errors.Fenced("x"), 69),
        (errors.WaitTimeout("x"), 124),
        (errors.RunFailed("failed", None, None), 1),
        (errors.GraphInvalid(("x",)), 2),
        (errors.Unknown("x"), 2),
        (errors.Conflict("x"), 2),
    ],
)
def test_an_error_is_an_exit_code(error: errors.HeadgateError, code: int) -> None:
    assert of_error(error) == code


def test_the_board_has_one_line_for_each_task_in_the_order_of_the_graph() -> None:
    nodes = [
        NodeView("a", "m.second", True, "ended", "succeeded", started_at=10.0, finished_at=12.0, cost_micros=5),
        NodeView("b", "m.first", True, "running", started_at=11.0),
        NodeView("c", "m.second", True, "ended", "timed_out", started_at=10.0, finished_at=11.0, cost_micros=2),
        NodeView("d", "m.first", False, "ended", "skipped"),
        NodeView("e", "m.first", True, "pending"),
    ]
    assert lines(nodes, now=14.0) == [
        Line("m.second", total=2, done=1, failed=1, time_s=3.0, cost_micros=7),
        Line("m.first", total=3, running=1, left_out=1, time_s=3.0),
    ]


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (0.0123, "12 ms"), (1.26, "1.3 s"), (61.0, "1:01"), (3725.0, "1:02:05")])
def test_durations_are_short(value: float | None, shown: str) -> None:
    assert seconds(value) == shown


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/r.db", writer=True)
    create_tables(engine)
    yield engine
    engine.dispose()


def add(engine: Engine, run_id: str, submitted_at: int) -> None:
    row = {"run_id": run_id, "generation": 1, "tenant": "default", "graph_name": "g", "digest": "", "status": "ended"}
    with engine.begin() as connection:
        connection.execute(insert(t.run).values(**row, submitted_at=submitted_at, priority=5, labels="{}", cost_micros=0))


def test_a_run_is_found_by_its_id_a_unique_beginning_or_as_the_latest(record: Engine) -> None:
    with pytest.raises(errors.Unknown, match="there is no run yet"):
        find_run(record, "latest")
    first, second = "01aaaaaaaaaaaaaaaaaaaaaaaa", "01aabbbbbbbbbbbbbbbbbbbbbb"
    add(record, first, 2)
    add(record, second, 1)
    assert find_run(record, "latest") == first
    assert find_run(record, second) == second
    assert find_run(record, "01aab") == second
    with pytest.raises(errors.HeadgateError, match="2 runs begin with '01aa'"):
        find_run(record, "01aa")
    with pytest.raises(errors.Unknown, match="begins with '7'"):
        find_run(record, "7")
    with pytest.raises(errors.Unknown, match="there is no run"):
        find_run(record, "0" * 26)

"""Graphs in Python: typed like the functions they are made of, judged like JSON."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery, Task

from orchestrator import building
from orchestrator.building import dag, equals, item, task, with_default
from orchestrator.graph import Graph
from orchestrator.placeholder import Placeholder
from orchestrator.registry import registry
from tenancy.errors import Conflict, GraphInvalid
from tenancy.priorities import Priority

ROOT = Path(__file__).parents[2]

EXAMPLE = """\
# pipeline.py
from orchestrator import dag, meter, task

@task(estimate={"llm": 30_000}, value=10, variants=[{"name": "one", "kind": "generation",
      "params": {"candidates": 1}, "estimate": {"llm": 10_000}, "value": 7}])
def draft(angle: str, candidates: int = 3) -> str:
    meter.charge("llm", 500 * candidates, "token")        # 20 micros a token; charged once per attempt
    return f"canals: {angle}"

@task(estimate={"compute": 1_000})
def merge(drafts: list[str]) -> str: return " | ".join(drafts)

@dag
def article(): return merge([draft("history"), draft("law"), draft.options(required=False)("folklore")])
"""


@task
def draft(angle: str, candidates: int = 3) -> str:
    return f"{angle} {candidates}"


@task
def merge(drafts: list[str], title: str | None = None) -> str:
    return " | ".join(drafts)


@task
async def fetch(url: str) -> str:
    await asyncio.sleep(0)
    return url


@task
def free(**params: Any) -> None: ...


def problems(function: Any) -> tuple[str, ...]:
    with pytest.raises(GraphInvalid) as refused:
        dag(function)()
    return refused.value.problems


def run_script(tmp_path: Path, text: str) -> str:
    (tmp_path / "pipeline.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "pipeline.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_example_builds_and_is_named_by_its_file(tmp_path: Path) -> None:
    graph = Graph.parse(run_script(tmp_path, EXAMPLE + '\nif __name__ == "__main__": print(article().canonical().decode())\n'))
    assert graph.name == "article"
    assert [(node.id, node.task, node.required) for node in graph.nodes] == [
        ("draft", "pipeline.draft", True),
        ("draft-2", "pipeline.draft", True),
        ("draft-3", "pipeline.draft", False),
        ("merge", "pipeline.merge", True),
    ]
    assert graph.nodes[3].params == {"drafts": [{"$ref": "draft"}, {"$ref": "draft-2"}, {"$ref": "draft-3"}]}
    assert graph.sink == "merge"


def mypy(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "pipeline.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache"), "pipeline.py"]
    done = subprocess.run(command, cwd=tmp_path, env={"MYPYPATH": str(ROOT)}, capture_output=True, text=True, timeout=110, check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("pipeline.py")]


def test_mypy_strict_passes_on_the_example_and_sees_wrong_uses(tmp_path: Path) -> None:
    typed = EXAMPLE.replace("def article():", "def article() -> str:")
    wrong = (
        "from orchestrator import Graph\n"
        "graph: Graph = article()\n"
        "@task\n"
        "async def fetch(url: str) -> str: return url\n"
        "@dag(name='other')\n"
        "def other(url: str) -> None:\n"
        "    merge([fetch(url), draft('x', candidates=2)])\n"
        "    merge([3])  # wrong: list item\n"
        "    draft(3)  # wrong: argument\n"
        "    draft.options(id='x')('x', candidate=1)  # wrong: name\n"
        "    merge(draft('x'))  # wrong: not a list\n"
        "other(3)  # wrong: argument\n"
    )
    lines = (typed + wrong).splitlines()
    expected = {number for number, line in enumerate(lines, 1) if "# wrong" in line}
    reported = mypy(tmp_path, typed + wrong)
    assert {int(line.split(":")[1]) for line in reported if " error: " in line} == expected, reported


def test_outside_a_dag_a_task_is_the_plain_function() -> None:
    assert draft("x") == "x 3"
    assert draft.options(id="y")("x", candidates=1) == "x 1"
    assert asyncio.run(cast("Any", fetch)("u")) == "u"
    assert with_default(draft("x"), None) == "x 3"
    assert draft.__name__ == "draft"


def test_options_reach_the_node() -> None:
    @dag(name="all", labels={"team": "a"})
    def build() -> None:
        first = draft("x")
        draft.options(
            id="y", required=False, value=5, after=[first, "z"], priority=Priority.HIGH, timeout_s=9, attempts=1, join="all_succeeded",
            estimate={"llm": 3}, max_cost=4, labels={"k": "v"},
        )("y")  # fmt: skip
        draft.options(id="z").options(after=first, priority="LOW")("z")

    graph = build()
    assert (graph.name, graph.labels) == ("all", {"team": "a"})
    node = graph.by_id["y"]
    assert (node.required, node.value, node.after, node.priority, node.timeout_s) == (False, 5, ("draft", "z"), Priority.HIGH, 9)
    assert (node.attempts, node.join, node.estimate, node.max_cost, node.labels) == (1, "all_succeeded", {"llm": 3}, 4, {"k": "v"})
    assert graph.by_id["z"].after == ("draft",)
    assert graph.by_id["z"].priority is Priority.LOW


def test_references_travel_in_nested_lists_and_dicts() -> None:
    @dag
    def nested() -> None:
        one, two = draft("x"), draft.options(required=False)("y")
        free(deep={"a": [one, {"b": (with_default(two, 0), 1)}]})

    assert nested().by_id["free"].params == {"deep": {"a": [{"$ref": "draft"}, {"b": [{"$ref": "draft-2", "default": 0}, 1]}]}}


def test_default_ids_skip_those_given_by_hand() -> None:
    @dag
    def ids() -> None:
        draft.options(id="draft-2")("x")
        for _ in range(3):
            draft("x")

    assert [node.id for node in ids().nodes] == ["draft-2", "draft", "draft-3", "draft-4"]


def test_everything_wrong_is_reported_at_once_when_the_dag_is_called() -> None:
    def wrong() -> None:
        merge(draft.options(required=False)("x"))  # type: ignore[arg-type]
        draft("x", candidates="x")  # type: ignore[arg-type]
        draft.options(id="n", when="a", pool="GPU", join="any", priority="hihg")(1, 2, 3, candidate=4)  # type: ignore[call-arg, arg-type]
        draft.options(after="nobody")(Path("x"))  # type: ignore[arg-type]

    found = "\n".join(problems(wrong))
    for part in (
        "node 'merge': it is required, and `drafts` refers to the optional node 'draft'",
        "node 'draft-2': `candidates` is 'x'; the task takes int",
        "`when` is 'a'; give a $ref", "`pool` is 'GPU'; use", "`join` is 'any'", "did you mean 'HIGH'?",
        "node 'n': 3 positional arguments", "node 'n': unknown parameter 'candidate'", "node 'n': `angle` is 1; the task takes str",
        "refers to 'nobody'", "is a Python PosixPath; give JSON values",
    ):  # fmt: skip
        assert part in found


def test_literals_inside_lists_of_references_are_checked_too() -> None:
    def mixed() -> None:
        merge([draft("x"), 3])  # type: ignore[list-item]

    assert problems(mixed) == ("node 'merge': `drafts[1]` is 3; the task takes str",)


@pytest.mark.parametrize(
    "use",
    [
        bool, list, len, str, hash, int, lambda r: r == "x", lambda r: r.upper(), lambda r: r[0], lambda r: f"{r}", lambda r: r + "x",
        lambda r: "x" + r, lambda r: "x" in r, lambda r: {r: 1}, lambda r: r(), lambda r: r < 1, lambda r: -r,
    ],
)  # fmt: skip
def test_a_result_that_does_not_exist_yet_can_only_be_passed_on(use: Any) -> None:
    def misuse() -> None:
        use(draft("x"))

    (found,) = problems(misuse)
    assert found.startswith("node 'draft': its result was used (")
    assert found.endswith("pass it to a task and do this there")


def test_a_result_of_another_graph_is_refused() -> None:
    kept: list[Any] = []

    @dag
    def one() -> None:
        kept.append(draft("x"))

    one()
    assert isinstance(kept[0], Placeholder)

    def two() -> None:
        merge([kept[0]])

    assert "belongs to another graph" in problems(two)[0]


def test_a_dag_within_a_dag_is_a_sub_graph_of_it() -> None:
    @dag
    def inner(angle: str) -> Any:
        return merge([draft(angle), draft("of its own")])

    @dag
    def outer() -> None:
        first = draft("x")
        draft.options(after=inner("plain"))(cast("str", inner(first)))

    assert {node.id: node.params for node in outer().nodes} == {
        "draft": {"angle": "x"},
        "inner.draft": {"angle": "plain"},
        "inner.draft-2": {"angle": "of its own"},
        "inner.merge": {"drafts": [{"$ref": "inner.draft"}, {"$ref": "inner.draft-2"}]},
        "inner-2.draft": {"angle": {"$ref": "draft"}},
        "inner-2.draft-2": {"angle": "of its own"},
        "inner-2.merge": {"drafts": [{"$ref": "inner-2.draft"}, {"$ref": "inner-2.draft-2"}]},
        "draft-2": {"angle": {"$ref": "inner-2.merge"}},
    }
    assert outer().by_id["draft-2"].after == ("inner.merge",)
    assert draft("x") == "x 3"


def test_what_is_said_of_a_whole_run_is_not_said_of_a_dag_within_a_dag() -> None:
    @dag(max_parallel=3)
    def inner() -> None:
        draft("x")

    @dag
    def empty() -> None: ...

    def outer() -> None:
        inner()
        empty()

    assert "`max_parallel` is the whole run's" in problems(outer)[0]
    assert "dag 'empty': the dag called no task" in problems(outer)[1]
    assert draft("x") == "x 3"


def test_a_map_takes_a_list_or_a_result_and_the_item_goes_where_it_stands() -> None:
    @dag
    def mapped() -> None:
        angles = draft.map(["law", "war"])
        options = draft.options(max_items=7, expected_items=3, join="all_done")
        merge(options.map(angles, "plain", item))
        merge.map([draft("x"), "y"], [item, {"deep": item}])  # type: ignore[list-item]

    nodes = mapped().by_id
    assert (nodes["draft"].map, nodes["draft"].params) == (["law", "war"], {"angle": {"$item": True}})
    second = nodes["draft-2"]
    assert (second.map, second.params) == ({"$ref": "draft"}, {"angle": "plain", "candidates": {"$item": True}})
    assert (second.max_items, second.expected_items, second.join, second.width) == (7, 3, "all_done", 3)
    assert nodes["merge"].params == {"drafts": {"$ref": "draft-2"}}
    assert (nodes["merge-2"].map, nodes["merge-2"].params) == (
        [{"$ref": "draft-3"}, "y"],
        {"drafts": [{"$item": True}, {"deep": {"$item": True}}]},
    )
    assert nodes["merge-2"].width == 2


def test_outside_a_dag_a_map_calls_the_function_for_each_item() -> None:
    assert draft.map(["a", "b"]) == ["a 3", "b 3"]
    assert draft.map([1, 2], "a", item) == ["a 1", "a 2"]


def test_an_item_cannot_be_used_while_the_graph_is_built() -> None:
    assert "the item of a map was used (with an operator)" in problems(lambda: draft.map([1], item + 1))[0]

    def without() -> None:
        draft(item)

    assert "this node has no map" in problems(without)[0]


def test_conditions_and_after_reach_out_of_a_sub_graph() -> None:
    @dag
    def inner(kind: Any, other: Any) -> None:
        draft.options(when=equals(kind, "law"), after=[other])("x")

    @dag
    def outer() -> None:
        inner(draft("a"), draft("b"))

    (node,) = (node for node in outer().nodes if node.id == "inner.draft")
    assert (node.after, node.when and node.when.ref) == (("draft-2",), "draft")


def test_a_dag_that_calls_no_task_or_is_async_is_refused() -> None:
    assert problems(lambda_named("empty"))[0].startswith("dag 'empty': the dag called no task")

    async def later() -> None: ...

    with pytest.raises(GraphInvalid, match="use a plain def"):
        dag(later)


def lambda_named(name: str) -> Any:
    def function() -> None: ...

    function.__name__ = name
    return function


def test_threads_build_their_own_graphs() -> None:
    barrier, graphs = threading.Barrier(4, timeout=30), {}

    def build(letter: str) -> None:
        @dag(name=letter)
        def lettered() -> None:
            for _ in range(3):
                barrier.wait()
                draft(letter)

        graphs[letter] = lettered()

    threads = [threading.Thread(target=build, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: [n.params["angle"] for n in graph.nodes] for name, graph in graphs.items()} == {name: [name] * 3 for name in "abcd"}


# ---- @task ------------------------------------------------------------------------------------------------------------


def test_a_task_is_named_by_module_and_function() -> None:
    assert draft.definition.name == f"{__name__}.draft"
    assert registry.get(f"{__name__}.draft") is draft.definition
    assert fetch.definition.is_async
    assert not draft.definition.is_async


def test_a_task_declared_wrongly_says_everything_at_once() -> None:
    with pytest.raises(GraphInvalid) as refused:

        @task(
            name="bad", estimate={"lmm": 1}, value=-1, variants=[{"name": "v", "kind": "gen"}], limits={"openai": 8}, pool="", expected_s=-1
        )  # type: ignore[arg-type]
        def bad(x: int, /) -> None: ...

    text = "\n".join(refused.value.problems)
    for part in (
        "`limits` takes a tuple of Limit",
        "positional-only",
        "did you mean 'llm'?",
        "`value` is -1",
        "`pool` is ''",
        "`expected_s` is -1",
        "`variants[0].value` is missing",
    ):
        assert part in text
    assert registry.get("bad") is None


def test_the_same_name_for_two_functions_is_refused() -> None:
    task(name="same.name")(lambda_named("first"))

    with pytest.raises(Conflict, match="pass name="):

        @task(name="same.name")
        def second() -> None: ...

    with pytest.raises(GraphInvalid, match="a lambda has no name"):
        task(lambda: None)


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("theirs", set_as_current=False)
    yield app
    app.close()


def test_any_celery_task_can_be_adopted_unchanged(app: Celery) -> None:
    class Base(Task):  # type: ignore[misc]
        abstract = True

    @app.task(bind=True, base=Base, name="theirs.resize", autoretry_for=(OSError,), retry_backoff=True)  # type: ignore[untyped-decorator]
    def resize(self: Any, path: str, width: int = 100) -> str:
        return f"{self.name} {path} {width}"

    adopted = task.adopt(resize, estimate={"compute": 7}, value=3)
    definition = adopted.definition
    assert (definition.name, definition.estimate, definition.value) == ("theirs.resize", {"compute": 7}, 3)
    assert list(definition.signature.parameters) == ["path", "width"]
    assert definition.adopted.name == "theirs.resize"
    assert adopted("p") == "theirs.resize p 100"

    @dag
    def resized() -> None:
        adopted("p", width=5)

    assert resized().nodes[0].id == "resize"

    def wrong() -> None:
        adopted(path=3, widht=4)

    assert len(problems(wrong)) == 2
    with pytest.raises(GraphInvalid, match="is not a Celery task"):
        task.adopt(len)


def test_importing_orchestrator_and_building_graphs_stays_light() -> None:
    code = (
        "import sys, orchestrator; before = set(sys.modules); orchestrator.dag;"
        "print(*[m for m in ('celery', 'redis', 'sqlmodel', 'rustworkx') if m in sys.modules], 'pydantic' in before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False"]


def test_building_exports_what_it_says() -> None:
    assert set(building.__all__) == {"Dag", "Task", "dag", "equals", "item", "not_equals", "one_of", "task", "with_default"}

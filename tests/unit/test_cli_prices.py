"""`headgate prices` over a record without a stack: what is in files, what they would change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert

from cost.prices import DEFAULT_PRICES
from orchestrator.cli import main
from orchestrator.cli.exits import Exit
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine

pytestmark = pytest.mark.unit

DEARER = {"compute/second": "1000", "llm/token": "40"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a record where acme has a table of its own."""
    monkeypatch.chdir(tmp_path)
    engine = open_engine(f"sqlite:///{tmp_path}/headgate.db", writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.tenant).values(id="acme", name="Acme", status="active", currency="EUR", created_at=0))
        row = {"version": "2", "prices": json.dumps(DEARER), "at": 1000, "by": "ann", "reason": "dearer"}
        connection.execute(insert(t.price_table).values(**row))
        connection.execute(insert(t.price_choice).values(tenant="acme", version="2", at=1000))
    engine.dispose()
    return tmp_path


def headgate(home: Path, *words: str) -> Result:
    with Settings(home=home).in_force():
        return CliRunner().invoke(main, ["prices", *words])


def test_tables_are_listed_with_who_pays_by_them(home: Path) -> None:
    first, own = json.loads(headgate(home, "list", "--json").stdout)
    assert (first["version"], first["platform"], first["tenants"]) == ("1", True, [])
    assert (own["version"], own["platform"], own["tenants"], own["by"], own["prices"]) == ("2", False, ["acme"], "ann", DEARER)
    assert "all others" in headgate(home, "list").stdout


def test_a_table_is_shown_by_its_version_or_by_who_pays(home: Path) -> None:
    assert json.loads(headgate(home, "show", "--json").stdout) == {"version": "1", "prices": DEFAULT_PRICES.texts()}
    assert json.loads(headgate(home, "show", "--tenant", "acme", "--json").stdout) == {"version": "2", "prices": DEARER}
    assert headgate(home, "show", "2").stdout.splitlines()[-1].split() == ["llm/token", "40"]
    assert headgate(home, "show", "7").exit_code == Exit.USAGE
    assert headgate(home, "show", "--tenant", "nobody").stderr == "headgate: there is no tenant 'nobody'\n"


def test_a_diff_tells_what_a_file_would_change(home: Path) -> None:
    (home / "new.toml").write_text('version = "3"\n[prices]\n"compute/second" = "1000"\n"llm/image" = "5"\n')
    (home / "new.json").write_text(json.dumps({"version": "4", "prices": DEARER}))
    found = json.loads(headgate(home, "diff", "new.toml", "--tenant", "acme", "--json").stdout)
    assert found == {"old": "2", "new": "3", "diff": {"llm/image": [None, "5"], "llm/token": ["40", None]}}
    assert json.loads(headgate(home, "diff", "new.json", "2", "--json").stdout)["diff"] == {}
    assert headgate(home, "diff", "new.json", "2").stdout == "2 -> 4: the same prices\n"
    assert json.loads(headgate(home, "diff", "2", "new.toml", "--json").stdout)["diff"]["llm/token"] == [None, "40"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.json", "{", "is no JSON"),
        ("p.json", '{"version": 5' + "0" * 5000 + ', "prices": {}}', "is no JSON"),
        ("p.json", '{"version": "3", "prices": {"llm/token": "1", "llm/token": "2"}}', "is named twice"),
        ("p.json", "[]", 'must have "version" and "prices"'),
        ("p.json", '{"version": "3", "prices": {}, "from": "now"}', "and nothing else"),
        ("p.json", '{"version": "3", "prices": {"compute/second": 0.1}}', "such as"),
        ("p.json", '{"version": "3", "prices": {"compute/second": NaN}}', "such as"),
        ("p.json", '{"version": "3", "prices": {"compute/second": "' + "9" * 5000 + '"}}', "such as"),
        ("p.toml", "version = 3", 'must have "version" and "prices"'),
        ("p.toml", "version = ", "is no TOML"),
        ("p.toml", 'version = "3"\n[prices]\n"compute/second" = inf\n', "such as"),
        ("p.toml", 'version = "3"\n[prices]\n"compute/second" = 0x10\n', "such as"),
    ],
)
def test_a_file_that_does_not_read_is_refused_in_one_sentence(home: Path, name: str, text: str, says: str) -> None:
    (home / name).write_text(text)
    done = headgate(home, "diff", name, "1")
    assert (done.exit_code, says in done.stderr) == (Exit.USAGE, True), done.stderr
    assert len(done.stderr.splitlines()[-1]) < 400


def test_a_file_that_is_not_there_is_named(home: Path) -> None:
    assert "gone.json cannot be read: No such file" in headgate(home, "diff", "gone.json", "1").stderr

"""Every revision of the record, up and down, with data in it; and what a start does with a record of another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import Engine, inspect, select, text
from sqlmodel import SQLModel

from orchestrator.cli import main
from orchestrator.migrations import revisions as module
from orchestrator.migrations.revisions import HEAD, REVISIONS, bring_up, migrate_record, move, revision_of
from orchestrator.recorder.__main__ import begin, first_start
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from tenancy.errors import Refused, Unavailable
from tests.stored_runs import store_runs, store_tenants

pytestmark = pytest.mark.both_records
KEY = b"a key of the tests"


def rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()]
            for table in t.TABLES
            if table.name != "audit"
        }


def differing(engine: Engine) -> list[Any]:
    """What the tables of the database have other than those of the code."""
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), SQLModel.metadata)


def of_first_revision(url: str) -> Engine:
    """A record as the first revision makes it."""
    engine = open_engine(url, writer=True)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
        module._alembic(connection, "0001", up=True)
    return engine


def indexes(engine: Engine) -> set[str]:
    return {str(each["name"]) for found in inspect(engine).get_multi_indexes().values() for each in found}


def at_revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return revision_of(connection)


def test_the_revisions_are_in_one_line_and_all_are_known() -> None:
    config = Config()
    config.set_main_option("script_location", "orchestrator:migrations")
    script = ScriptDirectory.from_config(config)
    assert tuple(each.revision for each in script.walk_revisions())[::-1] == REVISIONS
    assert script.get_heads() == [HEAD]


def test_what_the_revisions_make_is_what_the_code_says(new_database: Callable[[], str]) -> None:
    """Tables, columns and indexes: whoever changes orchestrator/store/tables.py adds a file to orchestrator/migrations/versions."""
    engine = of_first_revision(new_database())
    with engine.begin() as connection:
        move(connection, HEAD)
    assert differing(engine) == []
    made = open_engine(new_database(), writer=True)
    create_tables(made)
    assert differing(made) == []


def test_up_down_and_up_again_keeps_every_row(new_database: Callable[[], str]) -> None:
    engine = open_engine(new_database(), writer=True)
    first_start(engine, 5, KEY)
    store_tenants(engine, ["acme", "beta"])
    store_runs(engine, 20, tenants=("acme", "beta"))
    before = rows(engine)
    for revision in [*REVISIONS[::-1], *REVISIONS]:
        migrate_record(engine, revision, "", "tests")
        assert at_revision(engine) == revision
    assert rows(engine) == before
    assert differing(engine) == []


def test_an_empty_database_is_made_whole_at_the_first_start_and_stays_so(new_database: Callable[[], str]) -> None:
    engine = open_engine(new_database(), writer=True)
    for _ in range(2):
        first_start(engine, 5, KEY)
        assert at_revision(engine) == HEAD
    assert differing(engine) == []


def test_a_file_is_brought_up_at_the_start_and_a_server_refuses_and_says_how(
    new_database: Callable[[], str], database_kind: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    engine = of_first_revision(url)
    if database_kind == "sqlite":
        first_start(engine, 5, KEY)
        assert at_revision(engine) == HEAD
        return
    with pytest.raises(Refused, match=f"the record is at revision 0001, and this version needs {HEAD}: run `headgate migrate`"):
        first_start(engine, 5, KEY)
    assert at_revision(engine) == "0001"
    monkeypatch.setenv("HEADGATE_HOME", str(home))
    monkeypatch.setenv("HEADGATE_DATABASE_URL", url)
    assert CliRunner().invoke(main, ["migrate", "--check"]).exit_code == 1
    done = CliRunner().invoke(main, ["migrate", "--by", "ann", "--reason", "upgrade"])
    assert done.stdout == f"the record is at revision {HEAD}; it was at 0001\n"
    assert CliRunner().invoke(main, ["migrate", "--check"]).exit_code == 0
    with engine.connect() as connection:
        (line,) = connection.execute(select(t.audit).where(t.audit.c.action == "record.migrated")).all()
    assert (line.actor, '"old": "0001"' in line.data, '"upgrade"' in line.data) == ("ann", True, True)
    first_start(engine, 5, KEY)


def test_a_record_of_a_newer_version_is_left_alone(new_database: Callable[[], str]) -> None:
    engine = open_engine(new_database(), writer=True)
    first_start(engine, 5, KEY)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = rows(engine)
    with pytest.raises(Refused, match=f"at revision 9999, and this version knows up to {HEAD}"):
        first_start(engine, 6, KEY)
    with pytest.raises(Refused, match="9999"):
        migrate_record(engine, "0001", "", "tests")
    assert rows(engine) == before


def test_a_revision_that_is_none_and_a_record_that_is_not_there_are_told(new_database: Callable[[], str]) -> None:
    engine = open_engine(new_database(), writer=True)
    with pytest.raises(Refused, match="there is no record yet"):
        migrate_record(engine, "0001", "", "tests")
    with pytest.raises(Refused, match=r"there is no revision '\.\./0001'; this version knows 0001"):
        migrate_record(engine, "../0001", "", "tests")
    create_tables(engine)
    with pytest.raises(Refused, match="older than revisions"):
        migrate_record(engine, "0001", "", "tests")
    assert migrate_record(engine, HEAD, "", "tests") == (None, HEAD)


def test_a_migration_that_dies_halfway_changes_nothing(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = of_first_revision(new_database())
    before = indexes(engine)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("alembic.operations.Operations.create_index", die)
        with pytest.raises(KeyboardInterrupt), engine.begin() as connection:
            move(connection, HEAD)
    assert at_revision(engine) == "0001"
    assert indexes(engine) == before
    assert "logged" not in {column["name"] for column in inspect(engine).get_columns("run")}
    migrate_record(engine, HEAD, "", "tests")
    assert differing(engine) == []


def test_a_server_that_is_away_is_waited_for_at_the_first_start(tmp_path: Path) -> None:
    engine, stop = open_engine(f"postgresql+psycopg://nobody@/none?host={tmp_path}", writer=True), threading.Event()
    waiting = threading.Thread(target=begin, args=(engine, Settings(home=tmp_path), stop))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    stop.set()
    waiting.join(20)
    assert not waiting.is_alive()
    with pytest.raises(Unavailable, match="the database cannot be used"):
        migrate_record(engine, HEAD, "", "tests")


def test_a_database_that_cannot_keep_every_text_is_refused(request: pytest.FixtureRequest, database_kind: str) -> None:
    if database_kind == "sqlite":
        pytest.skip("SQLite's are all in UTF-8 or UTF-16")
    server = request.getfixturevalue("postgres")
    server.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'")
    engine = open_engine(server.url("latin"), writer=True)
    try:
        with pytest.raises(Exception, match="the database is in LATIN1"), engine.begin() as connection:
            bring_up(connection)
        assert inspect(engine).get_table_names() == []
    finally:
        engine.dispose()
        server.drop_database("latin")

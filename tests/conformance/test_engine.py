"""What a connection to the record promises, on every database: one writer at a time, readers that see one moment and write nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from orchestrator.store import engine as module
from orchestrator.store import read
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine, reading
from orchestrator.store.writer import read_cursor
from tenancy.errors import HeadgateError, Unavailable
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.both_records
CURSOR = insert(t.cursor).values(id=1, epoch=1, seq=1)
MOVED = text("UPDATE cursor SET seq = 2")


def test_a_reader_sees_one_moment_and_is_refused_writes(database_url: str) -> None:
    writer, reader = open_engine(database_url, writer=True), open_engine(database_url)
    create_tables(writer)
    with writer.begin() as connection:
        connection.execute(CURSOR)
    for engine in (reader, reading(writer)):
        with engine.connect() as connection:
            before = read_cursor(connection)
            with writer.begin() as other:
                other.execute(text("UPDATE cursor SET seq = seq + 1"))
            assert read_cursor(connection) == before
        with engine.connect() as connection:
            assert read_cursor(connection) > before
    with pytest.raises(DBAPIError, match=r"read-?only"), reader.begin() as connection:
        connection.execute(MOVED)


def test_a_second_writer_waits_where_it_begins_and_then_sees_what_the_first_one_wrote(database_url: str) -> None:
    first, second = open_engine(database_url, writer=True), open_engine(database_url, writer=True)
    create_tables(first)
    with first.begin() as connection:
        connection.execute(CURSOR)
    begun, found = threading.Event(), []

    def follow() -> None:
        begun.set()
        with second.begin() as connection:
            found.append(read_cursor(connection).seq)

    follower = threading.Thread(target=follow)
    with first.begin() as connection:
        follower.start()
        assert begun.wait(10)
        connection.execute(MOVED)
        assert found == []
    follower.join(20)
    assert found == [2]


def test_a_writer_that_waits_too_long_says_so_and_may_begin_anew(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 50)
    first, second = open_engine(database_url, writer=True), open_engine(database_url, writer=True)
    create_tables(first)
    with first.begin(), pytest.raises(OperationalError), second.begin():
        pass
    with second.begin() as connection:
        connection.execute(CURSOR)


def test_two_first_starts_at_once_make_one_record(new_database: Callable[[], str]) -> None:
    url, failed = new_database(), []

    def start() -> None:
        engine = open_engine(url, writer=True)
        try:
            create_tables(engine)
        except Exception as error:  # noqa: BLE001 (told by the test)
            failed.append(error)

    starts = [threading.Thread(target=start) for _ in range(4)]
    for each in starts:
        each.start()
    for each in starts:
        each.join(60)
    assert failed == []
    assert set(inspect(open_engine(url)).get_table_names()) >= {table.name for table in t.TABLES}


def test_a_forked_process_has_connections_of_its_own(postgres: PostgresServer) -> None:
    """A child that used its parent's socket would take its answers."""
    program = f"""
import os
from sqlalchemy import text
from orchestrator.store.engine import open_engine
engine = open_engine({postgres.url(postgres.record())!r})
def ask(number):
    with engine.connect() as connection:
        return connection.execute(text("SELECT CAST(:n AS INTEGER)"), {{"n": number}}).scalar()
assert ask(0) == 0
children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if all(ask(number) == number for number in range(200)) else 1)
    children.append(pid)
assert all(ask(number) == number for number in range(200))
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
assert ask(7) == 7
engine.dispose()
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONWARNINGS": "error"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


def test_texts_are_in_the_order_that_python_has_them(database_url: str) -> None:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    names = ["a-b", "ab", "a.b", "Ab", "a b", "ä", "z", "a1", "a_b", "ab-c", "abc", "B"]
    with engine.begin() as connection:
        connection.execute(insert(t.tenant), [{"id": name, "name": "", "created_at": 0} for name in names])
        assert list(connection.execute(select(t.tenant.c.id).order_by(t.tenant.c.id)).scalars()) == sorted(names)
        after = connection.execute(select(t.tenant.c.id).where(t.tenant.c.id > "ab").order_by(t.tenant.c.id)).scalars()
        assert list(after) == [name for name in sorted(names) if name > "ab"]


def test_whatever_text_a_user_can_choose_is_kept_and_numbers_are_as_wide_as_amounts(database_url: str) -> None:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    reason, most = "nul \0 quote ' percent % colon :x ümlaut 🚰 back\\slash", 2**53 - 1
    with engine.begin() as connection:
        connection.execute(insert(t.pause), [{"scope": "platform", "by": "%(by)s", "reason": reason, "at": most}])
        pause = connection.execute(select(t.pause)).one()
    assert (pause.by, pause.reason.replace("\ufffd", "\0"), pause.at) == ("%(by)s", reason, most)


def test_without_a_record_a_reader_says_so_in_one_sentence(new_database: Callable[[], str]) -> None:
    with pytest.raises(Unavailable, match=r"the record cannot be read .* it is made when the recorder first starts"):
        read.tenants(open_engine(new_database()))


def test_a_driver_that_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(HeadgateError, match=r"^psycopg is not installed, .* install headgate\[postgresql\]$"):
        open_engine("postgresql+psycopg://nobody@localhost/none")

"""Every setting of Headgate in one validated model, read from `HEADGATE_*`."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from orchestrator.backpressure import DEFAULT
from orchestrator.graph.limits import BYTES_CEILING, DEFAULT_LIMITS, EDGES_CEILING, NODES_CEILING, PARAMS_BYTES_CEILING
from orchestrator.redis_url import check_redis_url, for_client, for_kombu
from tenancy.errors import HeadgateError, Unavailable
from tenancy.policy import URL_CHARS_MAX, check_webhook
from tenancy.queues import DEFAULT_POOL, POOL_PATTERN, POOL_REMEDY

PREFIX = "HEADGATE_"
NOT_SETTINGS = frozenset({"HEADGATE_VENV"})
"""Names with our prefix that others read: `./dev` decides by HEADGATE_VENV where the environment is."""

_SECRET = ("SECRET", "KEY")
_DATABASES = ("sqlite", "postgresql")
_USER_INFO = re.compile(r"//[^\s/]*@")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_FUNCTION = re.compile(_MODULE.pattern + r":[A-Za-z_]\w*")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

REPORTS_KEPT_DAYS_MIN = 100
"""Reports are made of earlier ones: a month of its days, two months back, and what came late of 62 days."""


class Settings(BaseSettings):
    """What can be set, with the defaults of the embedded stack.

    Each field is read from `HEADGATE_` and its name in capitals. Times are in seconds (`_s`), sizes in bytes.
    `Settings.load()` is what the product uses; the constructor is for tests and for callers that set fields in code.
    """

    LOG_KEY_MIN: ClassVar[int] = 16
    """Characters of the shortest key."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    home: Path = Path(".headgate")
    """Holds everything: stack.json, headgate.db, logs/, results/."""
    redis_url: str | None = None
    """The Redis of the cell; None is the embedded one of the stack that runs in `home`."""
    database_url: str | None = None
    """The SQL database; None is SQLite at `home`/headgate.db."""
    tasks: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules that define tasks, separated by commas in the environment."""
    pools: Annotated[tuple[str, ...], NoDecode] = (DEFAULT_POOL,)
    """The pools that workers of this environment serve, separated by commas in the environment."""

    max_nodes: int = Field(DEFAULT_LIMITS.nodes, ge=1, le=NODES_CEILING)
    max_edges: int = Field(DEFAULT_LIMITS.edges, ge=1, le=EDGES_CEILING)
    max_graph_bytes: int = Field(DEFAULT_LIMITS.bytes_max, ge=1, le=BYTES_CEILING)
    """Of a graph as submitted, checked before it is parsed."""
    max_params_bytes: int = Field(DEFAULT_LIMITS.params_bytes, ge=1, le=PARAMS_BYTES_CEILING)
    """Of one node's parameters as JSON."""
    message_nodes: int = Field(40, ge=1, le=1_000)
    """Nodes in one canvas message."""
    message_bytes: int = Field(16_384, ge=1_024, le=65_536)
    """Of one canvas message; no message on the wire passes 64 KiB."""
    result_inline_bytes: int = Field(4_096, ge=0, le=65_536)
    """Results up to this size are kept in Redis, larger ones as objects at `results_url`."""
    results_url: str | None = None
    """A directory, or a URL that fsspec knows (s3://bucket/results; its package is installed beside), that all workers share and nobody
    else uses; None is `home`/results."""
    result_ttl_s: Seconds = 7 * 86_400.0
    """How long objects of results are kept after the end of the last run that refers to them."""
    collect_interval_s: Seconds = 600.0
    """How often beat has objects of results collected that nobody needs any more."""
    node_log_bytes: int = Field(262_144, ge=0, le=16_777_216)
    """How much of what a node logs and prints is kept for each attempt, the last of it; 0: nothing is."""
    node_log_interval_s: Seconds = 5.0
    """How often beat has the logs of nodes put away whose process was killed."""

    backlog_per_slot: int = Field(DEFAULT.backlog_per_slot, ge=1, le=1_000_000)
    """Capacity of a pool = its live slots times this; new runs wait while the load is high against it."""
    park_at_percent: int = Field(DEFAULT.park_at_percent, ge=1, le=1_000)
    """Of the capacity: from this load on a pool takes no new runs."""
    release_below_percent: int = Field(DEFAULT.release_below_percent, ge=1, le=1_000)
    """Of the capacity: below this load a parked pool takes new runs again; not more than `park_at_percent`."""
    backlog_target_s: Seconds = 60.0
    """How soon the backlog shall have begun: `headgate workers wanted` asks for so many slots."""

    incarnation_ttl_s: Seconds = 4.0
    """Without a sign of life for this long, a worker is dead."""
    sweep_interval_s: Seconds = 2.0
    stale_after_s: Seconds = 2.0
    """A run that is `submitted` for longer is completed by the sweeper."""
    worker_wait_s: Seconds = 1.0
    """How long a submission waits for a worker that serves its tasks; then it is on record and waits as a run."""
    task_wait_s: Seconds = 60.0
    """How long a node waits in a pool where no worker has its task any more; then it fails."""
    release: str = Field("", max_length=100)
    """What version of your tasks the workers of this environment run, such as a commit; they say it of themselves."""
    notify: str | None = None
    """A function, `module:function`, that is called with each notification, beside the log and the tenant's webhook."""
    webhook_secret: str | None = Field(None, min_length=16, repr=False)
    """What webhooks are signed with; without it none is sent."""
    otlp_endpoint: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    """Where the recorder sends the spans of runs that ended, by OTLP over HTTP, such as http://collector:4318; it needs headgate[otel]."""
    log_key: str | None = Field(None, min_length=LOG_KEY_MIN, repr=False)
    """What the log is chained with, the same wherever a recorder may run; None is the key in `home`/log.key, made once."""
    log_format: Literal["console", "json"] = "console"
    """How workers, beat, recorder and console write their own logs: lines for people, or JSON, one object a line."""
    notify_interval_s: Seconds = 2.0
    """How often beat has notifications delivered."""
    schedule_interval_s: Seconds = 2.0
    """How often beat has schedules looked at."""
    agent_interval_s: Seconds = 5.0
    """How often beat has the cost agent look at every tenant."""
    refusal_wait_s: float = Field(10.0, ge=0, le=3_600)
    """How long a node that the money does not cover waits for the cost agent; then the refusal is its outcome."""
    paused_hold_s: Seconds = 86_400.0
    """How long a paused run keeps the money that it holds; its place is free at once."""
    audit_interval_s: Seconds = 60.0
    """How often beat has counters compared with the ledger."""
    recorder_lag_limit_s: Seconds = 60.0
    """While an event has waited so long to be recorded, no node and no task that pays begins: SQL, or the recorder, is away."""
    event_retention_s: Seconds = 3_600.0
    """How far behind the recorder the event stream is trimmed."""
    run_keys_kept_s: Seconds = 3_600.0
    """How long Redis keeps a run whose end is on record; pages and handles read the record."""
    retry_delay_max_s: Seconds = 300.0

    artifacts: bool = True
    """Whether artifacts are written; nothing that the platform does depends on them."""
    artifacts_dir: Path | None = None
    """Where artifacts are written, a directory that nobody else writes to; None is `home`/artifacts."""
    artifacts_interval_s: Seconds = 1.0
    """How often beat has the artifacts of runs that ended, and the snapshot of the queues, written."""
    artifacts_kept_s: Seconds = 30 * 86_400.0
    """How long artifacts of what is over are kept."""
    reports: bool = True
    """Whether beat has reports made about each day and month that is over."""
    reports_interval_s: Seconds = 30.0
    """How often beat has it looked whether a report is due: five minutes after midnight UTC, and whenever one is missing."""
    reports_webhook: str | None = Field(None, max_length=URL_CHARS_MAX)
    """Where the platform's reports are sent, signed as the webhooks of tenants are; those of a tenant go where its policy says."""
    reports_kept_days: int = Field(400, ge=REPORTS_KEPT_DAYS_MIN, le=36_500)
    """How many days reports are kept, on record and as files."""

    @field_validator("home", "artifacts_dir")
    @classmethod
    def _is_directory(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        nearest = next((place for place in (value, *value.parents) if os.path.lexists(place)), None)
        if nearest is not None and not nearest.is_dir():
            raise ValueError(f"{nearest} is not a directory; name one, it is made where it is missing")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is not None:
            check_redis_url(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _is_database(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from sqlalchemy.engine import make_url  # only where it is asked for: it is slow to import
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(value)
            if url.get_backend_name() in _DATABASES:
                url.get_dialect()
                return value
        except (ArgumentError, ValueError):
            pass
        raise ValueError("write a URL of SQLAlchemy's, such as sqlite:////var/lib/headgate.db or postgresql+psycopg://user@host/name")

    @field_validator("tasks", "pools", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("tasks")
    @classmethod
    def _are_modules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _MODULE.fullmatch(name):
                hint = f"; name the module, {name[:-3].replace('/', '.')}" if name.endswith(".py") else ""
                raise ValueError(f"{name!r} is not the name of a module{hint}")
        return value

    @field_validator("notify")
    @classmethod
    def _is_function(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError(f"{value!r} does not name a function; write module:function")
        return value

    @field_validator("reports_webhook")
    @classmethod
    def _is_webhook(cls, value: str | None) -> str | None:
        return None if value is None else check_webhook(value)

    @field_validator("pools")
    @classmethod
    def _are_pools(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError(f"name at least one pool, such as {DEFAULT_POOL}")
        for name in value:
            if not re.fullmatch(POOL_PATTERN, name):
                raise ValueError(f"{name!r} is not the name of a pool; {POOL_REMEDY}")
        return tuple(dict.fromkeys(value))

    @field_validator("release_below_percent")
    @classmethod
    def _is_below(cls, value: int, info: ValidationInfo) -> int:
        park = info.data.get("park_at_percent")
        if park is not None and value > park:
            raise ValueError(f"a pool that is parked at {park} % cannot wait for less than {value} %; give a smaller number")
        return value

    @classmethod
    def load(cls) -> Settings:
        """Return the settings of this process, read from its environment once.

        Raises HeadgateError with one sentence for each unknown name and each value that does not validate.
        """
        return _in_force.get() or _load()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Let `load` return these settings inside the block: for a second stack in one process."""
        token = _in_force.set(self)
        try:
            yield
        finally:
            _in_force.reset(token)

    @staticmethod
    def forget() -> None:
        """Let the next `load` read the environment again."""
        _load.cache_clear()

    @property
    def stack_file(self) -> Path:
        """Where a running embedded stack says how to reach it."""
        return self.home / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Locked exactly while an embedded stack, or what is left of one, runs in `home`."""
        return self.home / "stack.lock"

    def stack(self) -> dict[str, Any] | None:
        """Return what the stack running in `home` wrote about itself, or None if none runs.

        The file of a stack that was killed does not count: the lock says whether it is alive.
        Raises Unavailable if `home` is no directory or cannot be read.
        """
        try:
            with self.lock_file.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # held by the stack
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self.home} cannot be used as HEADGATE_HOME: {error.strerror}") from None
        else:
            return None
        try:
            found = json.loads(self.stack_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def resolved_redis_url(self) -> str:
        """Return the Redis of the cell as Kombu and Celery read it.

        Raises Unavailable if none is set and no embedded stack runs in `home`.
        """
        if self.redis_url is not None:
            return for_kombu(self.redis_url)
        stack = self.stack()
        if stack is None:
            raise Unavailable(f"no Headgate stack runs in {self.home}: start one with `headgate up`, or set HEADGATE_REDIS_URL")
        return for_kombu(str(stack["redis_url"]))

    def resolved_client_url(self) -> str:
        """Return the Redis of the cell as redis-py reads it; raises as `resolved_redis_url`."""
        return for_client(self.resolved_redis_url())

    def resolved_database_url(self) -> str:
        """Return the URL of the SQL database as SQLAlchemy reads it; SQLite's path is absolute.

        Where none is set, it is that of the stack that runs in `home`, which may have been told another one.
        """
        if self.database_url is not None:
            return self.database_url
        stack = (self.stack() if self.redis_url is None else None) or {}
        return str(stack.get("database_url") or f"sqlite:///{self.home.absolute() / 'headgate.db'}")

    def resolved_results_url(self) -> str:
        """Return where objects of results live: a directory as an absolute path, or a URL."""
        if self.results_url is None:
            return str(self.home.absolute() / "results")
        return self.results_url if "://" in self.results_url else str(Path(self.results_url).absolute())

    def resolved_artifacts_dir(self) -> Path:
        """Return the folder of artifacts, absolute."""
        return (self.home / "artifacts" if self.artifacts_dir is None else self.artifacts_dir).absolute()

    def environment(self, **changes: object) -> dict[str, str]:
        """Return the HEADGATE_* that make another process load these settings, with `changes` by field name.

        Only what was set is passed on, and `home` as an absolute path: a child may work elsewhere.
        """
        given: dict[str, object] = {name: getattr(self, name) for name in self.model_fields_set}
        given |= {"home": self.home.absolute(), **changes}
        if "results_url" in given and self.results_url is not None:
            given["results_url"] = self.resolved_results_url()
        if given.get("artifacts_dir") is not None:
            given["artifacts_dir"] = self.resolved_artifacts_dir()
        return {PREFIX + name.upper(): _as_text(value) for name, value in sorted(given.items()) if value is not None}


def unknown_names(environment: Iterable[str]) -> list[str]:
    """Return one sentence for each name in `environment` that has our prefix and is no setting."""
    known = sorted(PREFIX + name.upper() for name in Settings.model_fields)
    return [_unknown(name, known) for name in sorted(environment) if name.startswith(PREFIX) and name not in {*known, *NOT_SETTINGS}]


def _unknown(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"{name} is not a setting of Headgate; the nearest is {nearest}"


def _invalid(error: ValidationError, environment: Mapping[str, str]) -> str:
    sentences = []
    for problem in error.errors():
        name = PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else PREFIX.rstrip("_")
        why = problem["msg"].removeprefix("Value error, ")
        given = "***" if name.endswith(_SECRET) else _USER_INFO.sub("//***@", environment.get(name, ""))
        sentences.append(f"{name}={given} does not fit: {why[:1].lower()}{why[1:]}")
    return "; ".join(sentences)


_in_force: ContextVar[Settings | None] = ContextVar("headgate_settings", default=None)


@cache
def _load() -> Settings:
    problems = unknown_names(os.environ)
    if problems:
        raise HeadgateError("; ".join(problems))
    try:
        return Settings()
    except ValidationError as error:
        raise HeadgateError(_invalid(error, os.environ)) from None


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

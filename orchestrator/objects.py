"""Objects: large results by name, in a directory or in any store that fsspec knows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tenancy.errors import HeadgateError, Unavailable

PART = ".part-"
"""Begins the name of a file that is not whole yet."""

DECISION = "+decision."
"""Begins the name of what a decision was made from, in the folder of its generation; no node's name begins with "+"."""

PART_KEPT_S = 86_400.0
"""What began so long ago and is not whole belongs to nobody."""


class Objects(Protocol):
    """Objects by name, `{run}/{generation}/{node}.{attempt}.json`. Each is written once, whole; reading one that is gone raises KeyError.

    All raise Unavailable when the store does not answer.
    """

    url: str

    def write(self, name: str, data: bytes) -> None:
        """Store an object; whoever reads sees all of it or none."""

    def read(self, name: str) -> bytes:
        """Return an object. Raises KeyError when there is none."""

    def runs(self) -> list[str]:
        """Return the runs that have objects, sorted."""

    def names(self, run_id: str) -> list[str]:
        """Return the names of a run's objects, sorted."""

    def remove(self, names: Iterable[str]) -> int:
        """Remove objects; return how many there were. What is gone already is passed over."""


class Directory:
    """Objects as files, shared by all workers. A file appears whole, by renaming it."""

    def __init__(self, place: Path) -> None:
        self.place = place.absolute()
        self.url = str(self.place)

    def write(self, name: str, data: bytes) -> None:
        """As Objects.write."""
        path = self.place / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=PART)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        except OSError as error:
            raise Unavailable(f"a result could not be written to {self.url}: {error.strerror or error}") from error

    def read(self, name: str) -> bytes:
        """As Objects.read."""
        try:
            return (self.place / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise Unavailable(f"a result could not be read from {self.url}: {error.strerror or error}") from error

    def runs(self) -> list[str]:
        """As Objects.runs."""
        if not self.place.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.place) if entry.is_dir())

    def names(self, run_id: str) -> list[str]:
        """As Objects.names."""
        files = (path for path in (self.place / run_id).rglob("*") if path.is_file() and not path.name.startswith(PART))
        return sorted(path.relative_to(self.place).as_posix() for path in files)

    def remove(self, names: Iterable[str]) -> int:
        """As Objects.remove; directories that become empty go too."""
        removed = 0
        for name in names:
            path = self.place / name
            try:
                path.unlink()
                removed += 1
            except FileNotFoundError:
                pass
            for parent in list(path.relative_to(self.place).parents)[:-1]:
                try:
                    (self.place / parent).rmdir()
                except OSError:
                    break  # something is in it, or somebody else was faster
        return removed

    def sweep_parts(self, now_s: float) -> None:
        """Remove what writers that died left half written, a day later."""
        for path in self.place.glob(f"*/*/{PART}*"):
            try:
                if path.stat().st_mtime < now_s - PART_KEPT_S:
                    path.unlink()
            except FileNotFoundError:
                continue


class Remote:
    """Objects in a store that fsspec knows, such as `s3://bucket/results`; its package is installed beside Headgate (s3fs, gcsfs, adlfs).

    Raises HeadgateError when the URL's protocol is unknown or its package is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opened: tuple[int, Any, str] | None = None
        self._check()

    def _check(self) -> None:
        import fsspec  # only where it is asked for: it is slow to import

        protocol = self.url.partition("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            raise HeadgateError(f"HEADGATE_RESULTS_URL={protocol}://... needs a package that is not installed: {error}") from None
        except ValueError:
            raise HeadgateError(
                f"HEADGATE_RESULTS_URL: fsspec knows no {protocol}://; name a directory, or a URL such as s3://bucket/results"
            ) from None

    @property
    def _store(self) -> tuple[Any, str]:
        """The file system and the path of our root in it, opened by this process: few of them survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            import fsspec

            with _answering(self.url):
                system, root = fsspec.core.url_to_fs(self.url)
            self._opened = os.getpid(), system, root.rstrip("/")
        return self._opened[1:]

    def write(self, name: str, data: bytes) -> None:
        """As Objects.write."""
        system, root = self._store
        path = f"{root}/{name}"
        with _answering(self.url):
            try:
                system.pipe_file(path, data)
            except FileNotFoundError:  # a store with real directories
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, data)

    def read(self, name: str) -> bytes:
        """As Objects.read."""
        system, root = self._store
        with _answering(self.url):
            try:
                return bytes(system.cat_file(f"{root}/{name}"))
            except FileNotFoundError:
                raise KeyError(name) from None

    def runs(self) -> list[str]:
        """As Objects.runs."""
        system, root = self._store
        with _answering(self.url):
            system.invalidate_cache()
            try:
                return sorted(path.rstrip("/").rpartition("/")[2] for path in system.ls(root, detail=False))
            except FileNotFoundError:
                return []

    def names(self, run_id: str) -> list[str]:
        """As Objects.names."""
        system, root = self._store
        with _answering(self.url):
            try:
                return sorted(f"{run_id}/{path.partition(f'/{run_id}/')[2]}" for path in system.find(f"{root}/{run_id}"))
            except FileNotFoundError:
                return []

    def remove(self, names: Iterable[str]) -> int:
        """As Objects.remove."""
        system, root = self._store
        removed = 0
        with _answering(self.url):
            for name in names:
                try:
                    system.rm_file(f"{root}/{name}")
                    removed += 1
                except FileNotFoundError:
                    continue
        return removed


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """Turn whatever a store of fsspec's raises into Unavailable; each has errors of its own."""
    try:
        yield
    except KeyError:
        raise
    except Exception as error:
        raise Unavailable(f"the store of results at {url} did not answer: {error}") from error


def open_objects(url: str) -> Directory | Remote:
    """Return the objects at a directory or a URL. Raises HeadgateError where Remote does."""
    if "://" not in url:
        return Directory(Path(url))
    if url.startswith("file://"):
        return Directory(Path(url.removeprefix("file://")))
    return Remote(url)

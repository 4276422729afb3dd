"""The deployment's key, which the recorder chains events with: from the settings, else from a file in the home, made once."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from orchestrator.settings import Settings
from tenancy.errors import HeadgateError

_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def path_of(settings: Settings) -> Path:
    """Return where the key is when no setting says it."""
    return settings.home.absolute() / "log.key"


def log_key(settings: Settings) -> bytes:
    """Return the key, making the file (mode 0600) where there is neither setting nor file; processes that race get the same key.

    Raises HeadgateError when others than its owner may read or write the file, OSError when it cannot be read or made.
    """
    key = known_key(settings)
    if key is not None:
        return key
    _make(path_of(settings))
    return read_key(path_of(settings))


def known_key(settings: Settings) -> bytes | None:
    """Return the key, None where there is none yet. Raises as `log_key`."""
    if settings.log_key is not None:
        return settings.log_key.encode()
    path = path_of(settings)
    return read_key(path) if path.exists() else None


def read_key(path: Path) -> bytes:
    """Return the key in a file. Raises HeadgateError when it is too short or others than its owner may use it, OSError."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS:
            raise HeadgateError(
                f"{path} has mode {mode:04o}: whoever reads it can forge the log; `chmod 600` it, or set HEADGATE_LOG_KEY instead"
            )
        key = file.read().strip()
    if len(key) < Settings.LOG_KEY_MIN:
        raise HeadgateError(
            f"{path} holds no key of {Settings.LOG_KEY_MIN} characters or more; put back the key that the log was made with"
        )
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)  # fails where another process was faster; a reader never sees half a key
    except FileExistsError:
        pass
    finally:
        fresh.unlink(missing_ok=True)

"""Beat that is told to end while it sends a message ends well, and not of a schedule that was closed under it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.settings import Settings

HERE = Path(__file__).resolve().parent


def test_beat_told_to_end_in_the_middle_of_a_tick_ends_with_code_0(settings: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    argv = [sys.executable, "-m", "celery", "-A", "orchestrator.app", "beat", "-S", "ending_beat:EndingScheduler"]
    argv += ["--schedule", str(tmp_path / "schedule"), "--pidfile", str(tmp_path / "pid"), "--loglevel=INFO"]
    done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "beat raised exception" not in done.stderr
    assert not (tmp_path / "pid").exists()

"""The tasks of the integration tests, as a user's module would have them; workers load it by --tasks, tests import it."""

from __future__ import annotations

import singles

singles.install()

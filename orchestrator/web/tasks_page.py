"""Flower's list of tasks with tenant, run and node as columns, where nobody chose the columns himself."""

from __future__ import annotations

from flower.views.tasks import TASK_COLUMNS, TasksView
from tornado import web

from orchestrator.web.task_state import OURS

DEFAULT = "name,uuid,state,received,runtime,worker"
"""Flower's columns where none are chosen."""
COLUMNS = "name,uuid,state,tenant,run,node,received,runtime,worker"


class TasksPage(TasksView):
    """GET /tasks."""

    @web.authenticated
    def get(self) -> None:
        """Render the page, which reads its rows as Flower's does."""
        chosen = self.application.options.tasks_columns
        if chosen == DEFAULT:
            chosen = COLUMNS
        known = {**TASK_COLUMNS, **OURS}
        columns = [(name, known[name]) for name in map(str.strip, chosen.split(",")) if name in known]
        time = "natural-time" if self.application.options.natural_time else "time"
        if self.capp.conf.timezone:
            time += f"-{self.capp.conf.timezone}"
        self.render("tasks.html", columns=columns, time=time)

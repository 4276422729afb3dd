"""Templates of ours laid over Flower's: a file of the same name replaces Flower's, every other one is Flower's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tornado.template import Loader, Template

NAVBAR = "navbar.html"
SPLICES: Mapping[str, tuple[tuple[str, str], ...]] = {
    NAVBAR: (
        ('<ul class="app-nav navbar-nav">', '{% include "navigation.html" %}'),
        ("</nav>", '{% include "banner.html" %}'),
    ),
    "task.html": (('<div class="detail-actions">', '{% include "task_run.html" %}'),),
}
"""What is put into templates of Flower's: after the first place of a text, our own template."""


class Overlay(Loader):
    """A loader that looks in `over` first and in `under` for what is not there, where it splices in what `SPLICES` says.

    Names are flat, as Flower's are; a template extends or includes another one by its name, whichever folder that is in.
    """

    def __init__(self, over: Path, under: Path) -> None:
        super().__init__(str(over))
        self._folders = (over, under)

    def _create_template(self, name: str) -> Template:
        path = next((folder / name for folder in self._folders if (folder / name).is_file()), self._folders[-1] / name)
        text = path.read_text()
        if path.parent == self._folders[-1]:
            for anchor, put in SPLICES.get(name, ()):
                text = text.replace(anchor, f"{anchor}\n{put}", 1)
        return Template(text, name=name, loader=self)

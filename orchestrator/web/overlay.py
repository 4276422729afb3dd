"""Templates of ours laid over Flower's: a file of the same name replaces Flower's, every other one is Flower's own."""

from __future__ import annotations

from pathlib import Path

from tornado.template import Loader, Template


class Overlay(Loader):
    """A loader that looks in `over` first and in `under` for what is not there.

    Names are flat, as Flower's are; a template extends or includes another one by its name, whichever folder that is in.
    """

    def __init__(self, over: Path, under: Path) -> None:
        super().__init__(str(over))
        self._folders = (over, under)

    def _create_template(self, name: str) -> Template:
        path = next((folder / name for folder in self._folders if (folder / name).is_file()), self._folders[-1] / name)
        return Template(path.read_bytes(), name=name, loader=self)

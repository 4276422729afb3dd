"""The cost agent at work: looks at tenants and their runs, decides (`cost.agent`), and applies what was decided."""

from .governor import Governed, Governor

__all__ = ["Governed", "Governor"]

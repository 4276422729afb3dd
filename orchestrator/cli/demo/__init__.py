"""`headgate demo`: the product at work on this machine, and the nights that it is built for."""

from __future__ import annotations

from .show import demo

__all__ = ["demo"]

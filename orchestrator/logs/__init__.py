"""Logs of nodes: what a task says by `logging` and `print` while it runs, for each attempt.

`capture` is what workers do, `reading` what everybody else does; readers do without Celery, so nothing is imported here.
"""

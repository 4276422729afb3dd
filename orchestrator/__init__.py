"""Orchestrator runs: graphs are compiled, launched on Celery, gated, finished and recorded."""

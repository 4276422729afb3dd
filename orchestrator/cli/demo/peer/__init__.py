"""The peer: stock Celery, which knows nothing of us."""

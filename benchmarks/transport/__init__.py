"""Throughput of no-ops with 1 to 5,000 tenants: the fair transport beside stock Celery."""

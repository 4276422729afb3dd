"""Metrics for Prometheus: counted from the log as it comes, or read from Redis and the record when they are asked for."""

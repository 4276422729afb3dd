"""Schedules: graphs that run at times, each time once; and backfills over the times of a range."""

"""Trials of cancels and pauses: after the acknowledgement nothing of the scope begins, under load and restarts of everything."""

"""Traces: a run is a trace, its nodes and their attempts are spans; told from the log, so that what was killed shows too."""

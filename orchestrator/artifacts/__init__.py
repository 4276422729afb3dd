"""Artifacts: JSON files under HEADGATE_HOME, derived from the record and never read back by the platform. One noun per file."""

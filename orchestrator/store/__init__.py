"""The record in SQL: tables, the one writer, and typed reading."""

"""The revisions of the record's tables, and how a database gets from one to another."""

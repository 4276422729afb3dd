"""Reports about what was spent and done: of a tenant and of the platform, for a day or a month. One noun per file."""

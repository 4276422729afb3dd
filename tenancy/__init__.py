"""Tenancy permits: tenants, priorities, the fair transport, liveness and the epoch fence."""

"""The cost agent under a mixed load: thirty tenants, each with 60 % of the money that its runs are projected to cost."""

"""What a tenant's executions taught: what they cost and how they do, which variant to take, and what learning may cost. Pure."""

"""The fair transport: queues per tenant and priority, delivered to incarnations of workers."""

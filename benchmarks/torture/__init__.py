"""Torture of the transport: SIGKILL of real workers, and of single processes of their pools, at random points under a steady load."""

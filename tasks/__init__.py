"""One coarse verb a task; the only place with Prefect decorators. Heavy imports stay inside functions."""

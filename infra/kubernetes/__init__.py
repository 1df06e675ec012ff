"""A Kubernetes cluster as the place where flows run: the platform in it, the worker, the Jobs, why they fail."""

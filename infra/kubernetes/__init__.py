"""Kubernetes: the client, server-side apply, and the manifests of the platform and of what runs on it."""

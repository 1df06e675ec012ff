"""MLflow: what was trained, from what, how good it is, and which version is in use.

A training talks to :class:`infra.tracking.tracker.Tracker`, which never fails it. ``registry`` promotes, ``gate``
judges, ``lineage`` tells where a version comes from, ``download`` fetches one.
"""

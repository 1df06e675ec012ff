"""The platform in a namespace of a cluster: Postgres, Prefect, MLflow, a worker, and what they need."""

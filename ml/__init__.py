"""Pure machine learning: knows neither Prefect nor MLflow, and runs as ``python -m ml.<stage>``."""

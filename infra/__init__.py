"""How the outside is reached: the local stack, git, DVC, MLflow. Knows neither Prefect flows nor torch."""

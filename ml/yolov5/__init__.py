"""Training a YOLOv5 detector with Ultralytics: fast on a CPU, resumable, the same weights for the same inputs."""

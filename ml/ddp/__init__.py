"""Examples of distributed trainings: scripts that run under torchrun anywhere, and alone with plain python."""

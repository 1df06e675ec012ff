"""What a user writes, and the typed models that read it."""

"""A distributed training on a cluster: its objects, how it is followed to its end, and what goes away after it."""

"""What a ready cluster carries besides its nodes: manifests, by pure functions of typed values."""

"""The checkout as a version: what git and DVC know of code and data, and what they do on our behalf."""

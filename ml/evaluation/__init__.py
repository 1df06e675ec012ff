"""Weights judged on the test split, exported, and the exports compared with them."""

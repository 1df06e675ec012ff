"""Boxes around things: their geometry, their colours and how they are drawn. Shared by evaluate and detect."""

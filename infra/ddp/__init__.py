"""Distributed trainings: what a gang is, and torchrun on one machine."""

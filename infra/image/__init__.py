"""The image of flows and trainings: what is in it, who builds it, which one is current."""

"""Brings a user's own dataset (YOLO, Roboflow or COCO; a folder or a zip) into this project's YOLO layout."""

from ml.importing.importer import import_dataset
from ml.importing.summary import ImportSummary, Move

__all__ = ["ImportSummary", "Move", "import_dataset"]

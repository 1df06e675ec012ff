"""A detection dataset in YOLO layout: typed reading, and what can be wrong with it."""

from ml.dataset.faults import Fault
from ml.dataset.labels import Box, Labels, format_box, parse_labels
from ml.dataset.layout import (
    IMAGE_SUFFIXES,
    SPLITS,
    Dataset,
    Sample,
    label_path,
    open_dataset,
    read_class_names,
    write_dataset_yaml,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "Box",
    "Dataset",
    "Fault",
    "Labels",
    "Sample",
    "format_box",
    "label_path",
    "open_dataset",
    "parse_labels",
    "read_class_names",
    "write_dataset_yaml",
]

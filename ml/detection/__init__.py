"""The exported model on videos and pictures: decode, infer, draw, encode, in one pipeline."""

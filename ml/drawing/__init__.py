"""Draws warehouse scenes with forklifts and persons, byte for byte the same on every CPU.

Only operations that IEEE 754 or integers define exactly are used: floats are added, multiplied, divided and rooted one
by one or element by element, never summed by a vector unit or passed to a library's sine; pixels are integers. So no
result depends on the CPU's vector instructions, on threads or on the order in which images are drawn.
"""

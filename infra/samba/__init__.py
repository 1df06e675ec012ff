"""The share itself: a hardened Samba server, its mount on a machine, and the sentinel that tells it from an empty one.

Pure builders: typed values in, texts and commands out. Whoever sets machines up carries them there.
"""

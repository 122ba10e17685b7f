"""Stands in for a PyTorch whose libraries do not load."""

raise OSError("libcudart.so.13: cannot open shared object file:\n  No such file or directory")

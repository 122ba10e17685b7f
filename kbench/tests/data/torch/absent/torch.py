"""Stands in for a Python without PyTorch, also where it is installed."""

raise ModuleNotFoundError("No module named 'torch'", name="torch")

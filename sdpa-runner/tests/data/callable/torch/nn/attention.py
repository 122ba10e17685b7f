"""There, so that it can be imported."""

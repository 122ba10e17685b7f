"""Nothing but a place for `attention`."""

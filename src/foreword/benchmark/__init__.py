"""A benchmark of transfer: every domain in turn is the one without labels, and every system is scored on it."""

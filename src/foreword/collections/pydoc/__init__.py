"""Documentation of installed Python packages."""

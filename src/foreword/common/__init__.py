"""What every other package may use: errors and files."""

"""What is in the Python files of this machine."""

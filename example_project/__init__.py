"""A small project that uses dbqueue: it reads Python's own library, one job a file."""

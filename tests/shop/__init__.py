"""A small app with tasks, for the tests."""

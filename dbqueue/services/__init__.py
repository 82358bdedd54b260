"""The threads beside those that run jobs: each does one thing, on a connection of its own. And what they share."""

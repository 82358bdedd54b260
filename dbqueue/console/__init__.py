"""What stands behind ``admin.py``: a room for each kind of page, and what the pages share."""

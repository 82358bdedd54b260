"""Other queues' names for what dbqueue does, so that code moves by changing its imports."""

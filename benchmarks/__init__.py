"""What dbqueue is worth, measured. ``docs/benchmarks.md`` says what each command measures and how to run it."""

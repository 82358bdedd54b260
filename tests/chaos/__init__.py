"""The promise that nothing is lost, put to the proof: real workers under load, and faults that strike at random.

``load`` keeps a ledger of what was enqueued; each run of a job leaves a row of ``shop.models.Run``; ``faults`` makes
faults and remembers when each began, when its consequences ended and whom it hit; ``verdict`` compares the three.
"""

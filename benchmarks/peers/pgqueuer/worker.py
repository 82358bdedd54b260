"""``python -m benchmarks.peers.pgqueuer.worker``: what ``pgq run`` does."""

import pgqueuer
import uvloop

from .jobs import queuer

BATCH = 250

if __name__ == "__main__":
    uvloop.run(pgqueuer.run(queuer, batch_size=BATCH))

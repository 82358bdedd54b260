"""The peers, in the order of the table."""

from . import celery, dj_queue, django_ox, django_tasks_db, huey, own, pgqueuer, procrastinate
from .peer import Peer

OWN = own.PEER

PEERS: list[Peer] = [
    OWN,
    pgqueuer.PEER,
    procrastinate.PEER,
    django_ox.PEER,
    dj_queue.PEER,
    django_tasks_db.PEER,
    huey.PEER,
    celery.PEER,
]

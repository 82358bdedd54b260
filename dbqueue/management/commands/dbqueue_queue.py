"""``manage.py dbqueue_queue``: pause, drain or resume a queue, or list those that are closed."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import queues
from ...exceptions import InvalidQueue


class Command(BaseCommand):
    help = "Pause, drain or resume a queue. Without arguments: the queues that are closed, and why."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=("pause", "drain", "resume"))
        parser.add_argument("queue", nargs="?", help="The queue's name.")
        parser.add_argument("--reason", default="", help="For whoever looks next.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] and not options["queue"]:
            raise CommandError(f"Which queue? Say dbqueue_queue {options['action']} NAME.")
        try:
            self._act(options["action"], options["queue"], options["reason"])
        except InvalidQueue as exc:
            raise CommandError(str(exc)) from exc

    def _act(self, action: str | None, queue: str, reason: str) -> None:
        match action:
            case "pause":
                self._warn(queues.close(queue, reason))
                self.stdout.write(f"Queue {queue} is paused.")
            case "drain":
                self._warn(queues.close(queue, reason, drains=True))
                self.stdout.write(f"Queue {queue} is drained: what is in it now still runs.")
            case "resume":
                was_closed = queues.resume(queue)
                self.stdout.write(f"Queue {queue} is open{'' if was_closed else '; it was not closed'}.")
            case _:
                self._list()

    def _list(self) -> None:
        closed, drained = queues.closed(), queues.drained()
        for name, why in sorted(closed.items()):
            kind = "drained" if name in drained else "paused"
            self.stdout.write(f"{name}: {kind}, {why or 'no reason given'}")
        if not closed:
            self.stdout.write("No queue is paused or drained.")

    def _warn(self, doubt: str) -> None:
        if doubt:
            self.stderr.write(self.style.WARNING(f"Warning: {doubt}"))

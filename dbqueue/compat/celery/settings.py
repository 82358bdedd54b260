"""The settings of Celery that mean something here, by their names in lower case, and those that don't."""

import copy
from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "beat_schedule": {},
    "imports": (),
    "include": (),
    "result_backend": None,
    "task_acks_late": False,
    "task_always_eager": False,
    "task_default_priority": None,
    "task_default_queue": "default",
    "task_default_rate_limit": None,
    "task_eager_propagates": False,
    "task_ignore_result": False,
    "task_routes": None,
    "task_soft_time_limit": None,
    "task_time_limit": None,
    "task_track_started": False,
    "timezone": None,
}
"""What is read, and what it is where nothing is set."""

OLD_NAMES = {
    "acks_late": "task_acks_late",
    "always_eager": "task_always_eager",
    "default_rate_limit": "task_default_rate_limit",
    "eager_propagates_exceptions": "task_eager_propagates",
    "beat_schedule": "beat_schedule",
    "celerybeat_schedule": "beat_schedule",
    "default_priority": "task_default_priority",
    "default_queue": "task_default_queue",
    "ignore_result": "task_ignore_result",
    "track_started": "task_track_started",
    "routes": "task_routes",
    "task_serializer": "task_serializer",
    "celeryd_task_time_limit": "task_time_limit",
    "celeryd_task_soft_time_limit": "task_soft_time_limit",
}
"""Those from before Celery 4."""


class Configuration(MutableMapping[str, Any]):
    """``app.conf``, by attribute and by item: what code has ``said``, what was ``found`` in settings, or the default.

    Whoever first asks for something has the settings read, by ``read()``; to say something needs none of them.
    """

    def __init__(self, read: Callable[[], object] = lambda: None) -> None:
        # The defaults are this app's own: code may add to a dict that it is given.
        self.__dict__.update(said={}, found={}, defaults=copy.deepcopy(DEFAULTS), read=read)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __getitem__(self, name: str) -> Any:
        return self._all()[known_name(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        self.said[known_name(name)] = value

    def __delitem__(self, name: str) -> None:
        del self.said[known_name(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> ChainMap[str, Any]:
        self.read()
        return ChainMap(self.said, self.found, self.defaults)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def ignored(self) -> list[str]:
        """What was set and means nothing here."""
        return sorted(name for name in self._all() if name not in DEFAULTS)


def known_name(name: str) -> str:
    name = name.lower()
    return OLD_NAMES.get(name, name)


def named(key: str, prefix: str) -> str | None:
    """The setting that this attribute of a settings object is; None where it is none of Celery's.

    Without a namespace: the names of a celeryconfig.py, in lower case, and the old ones in capitals.
    """
    if prefix:
        return known_name(key[len(prefix) :]) if key.startswith(prefix) and key.isupper() else None
    name = known_name(key.removeprefix("CELERY_"))
    return name if name in DEFAULTS or (key.isupper() and key.startswith("CELERY_")) else None

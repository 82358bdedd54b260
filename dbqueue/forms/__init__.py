"""The form that enqueues a job: typed fields from a task's signature.

What the task receives is what JSON can hold, as from every other entrance:

======================================  ==============================================================
hint of the parameter                   what the task receives
======================================  ==============================================================
``int`` ``float`` ``bool`` ``str``      the value itself
``Decimal`` ``UUID``                    its text: ``"0.10"``, ``"c5a1…"``
``date`` ``time`` ``datetime``          ISO 8601 text, a datetime with its offset under ``USE_TZ``
``timedelta``                           ISO 8601 text: ``"P0DT01H30M00S"``
``Literal``                             the chosen value
an ``Enum``                             the chosen member's value
a model, as ``User``                    its primary key: ``7``; the form looks whether there is such a row
anything else, or no hint               what was typed as JSON
======================================  ==============================================================

A field that still shows the parameter's default is left out of the call, so that the code's default holds, whatever it
is when the job runs. An emptied field is ``None`` where the hint allows that, the empty text for ``str``, and otherwise
the code's default.
"""

from .arguments import readable_signature
from .enqueue import OPTIONS, ChooseTaskForm, EditForm, EnqueueForm, edit_form, enqueue_form, tasks_like
from .schedule import PlanForm, ScheduleForm, plan_form

__all__ = [
    "OPTIONS",
    "ChooseTaskForm",
    "EditForm",
    "EnqueueForm",
    "PlanForm",
    "ScheduleForm",
    "edit_form",
    "enqueue_form",
    "plan_form",
    "readable_signature",
    "tasks_like",
]

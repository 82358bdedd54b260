"""When periodic tasks are due."""

import datetime

from bakery.celery import app
from celery.schedules import crontab, schedule
from django.conf import settings


def test_crontabs_are_equal_by_their_fields():
    assert crontab(minute=0, hour=8, day_of_week="mon") == settings.CELERY_BEAT_SCHEDULE["weekly letter"]["schedule"]
    assert crontab(hour=18, minute=30) != crontab(hour=18, minute=31)


def test_all_that_a_crontab_takes():
    made = [
        crontab(),
        crontab(minute="*/5"),
        crontab(minute=[0, 30], hour="8-17", day_of_week="mon-fri"),
        crontab(minute=0, hour=0, day_of_month=1, month_of_year="1,7"),
    ]
    assert len(set(map(repr, made))) == 4


def test_the_schedule_of_the_settings():
    entries = app.conf.beat_schedule
    assert {"close the day", "weekly letter", "feed the sourdough", "look at the ovens"} <= set(entries)
    assert {entry["task"] for entry in entries.values()} <= set(app.tasks)


def test_intervals():
    assert schedule(run_every=60).run_every == datetime.timedelta(seconds=60)


def test_settings_can_be_read():
    assert app.conf.timezone == "Europe/Berlin"
    assert app.conf.task_default_queue == "default"
    assert app.conf.task_routes == {"mail.tasks.*": {"queue": "mail"}}
    assert app.main == "bakery"

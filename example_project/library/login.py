"""The user for the example's admin."""

import secrets

from django.contrib.auth import get_user_model

USER = "dbqueue-demo"


def give_new_password() -> str:
    """Make the user, or give it a new password: nobody is to find a known one on a real server. Returns a sentence."""
    password = secrets.token_urlsafe(6)
    user, _ = get_user_model().objects.get_or_create(username=USER, defaults={"is_staff": True, "is_superuser": True})
    user.set_password(password)
    user.save()
    return f"log in as {USER} with the password {password}"


def somebody_can_log_in() -> bool:
    return get_user_model().objects.filter(is_staff=True, is_active=True).exists()

"""For ``include("dbqueue.urls")``: what a monitoring system asks for. Needs the extra ``metrics``."""

from django.urls import path

from .console.metrics import healthz, metrics

urlpatterns = [
    path("metrics", metrics, name="dbqueue_metrics"),
    path("healthz", healthz, name="dbqueue_healthz"),
]

"""What was found in the source files."""

from django.db import models


class SourceFile(models.Model):
    """One file of the library."""

    name = models.CharField(max_length=255, unique=True, help_text="As in json/decoder.py.")
    lines = models.PositiveIntegerField(default=0)
    classes = models.PositiveIntegerField(default=0)
    problem = models.TextField(blank=True, help_text="Why Python can't parse it.")

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Function(models.Model):
    """A function or a method, wherever it is nested."""

    file = models.ForeignKey(SourceFile, models.CASCADE, related_name="functions")
    name = models.CharField(max_length=255)
    first_line = models.PositiveIntegerField()
    lines = models.PositiveIntegerField()

    class Meta:
        ordering = ("-lines", "id")

    def __str__(self) -> str:
        return f"{self.name}()"


class Import(models.Model):
    """A module that a file imports; ``from . import x`` is written as a dot."""

    file = models.ForeignKey(SourceFile, models.CASCADE, related_name="imports")
    module = models.CharField(max_length=255)

    class Meta:
        ordering = ("module",)
        constraints = (models.UniqueConstraint(fields=["file", "module"], name="library_import_once"),)

    def __str__(self) -> str:
        return self.module

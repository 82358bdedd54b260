from django.contrib import admin

from .models import Function, Import, SourceFile


@admin.register(SourceFile)
class SourceFileAdmin(admin.ModelAdmin):
    list_display = ("name", "lines", "classes", "problem")
    list_filter = (("problem", admin.EmptyFieldListFilter),)
    search_fields = ("name",)


@admin.register(Function)
class FunctionAdmin(admin.ModelAdmin):
    list_display = ("name", "file", "first_line", "lines")
    list_select_related = ("file",)
    raw_id_fields = ("file",)
    search_fields = ("name", "file__name")


@admin.register(Import)
class ImportAdmin(admin.ModelAdmin):
    list_display = ("module", "file")
    list_select_related = ("file",)
    raw_id_fields = ("file",)
    search_fields = ("module",)

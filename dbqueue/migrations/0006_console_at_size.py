from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dbqueue", "0005_workflows"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="history",
            index=models.Index(
                condition=models.Q(("outcome", "FAILED"), ("seconds", 60)),
                fields=["begins_at", "task", "queue_name"],
                name="dbqueue_history_failed",
            ),
        ),
        migrations.AddIndex(
            model_name="history",
            index=models.Index(
                condition=models.Q(("seconds", 60), ("task", "")),
                fields=["begins_at", "queue_name"],
                name="dbqueue_history_sums",
            ),
        ),
        migrations.AddField(
            model_name="bulkoperation",
            name="inside",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="Jobs inside groups that were cancelled, or asked to stop, with them.",
            ),
        ),
    ]

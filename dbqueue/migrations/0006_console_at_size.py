from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dbqueue", "0005_workflows"),
    ]

    operations = [
        migrations.AddField(
            model_name="bulkoperation",
            name="inside",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="Jobs inside groups that were cancelled, or asked to stop, with them.",
            ),
        ),
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
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("status", "SCHEDULED")), fields=["run_after", "id"], name="dbqueue_job_due"
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(condition=models.Q(("status", "FAILED")), fields=["-id"], name="dbqueue_job_failed"),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("status", "CANCELLED")), fields=["-id"], name="dbqueue_job_cancelled"
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("status", "WAITING")), fields=["-id"], name="dbqueue_job_waiting_newest"
            ),
        ),
        # Last: from here on nobody can even read the jobs, and it takes no time.
        migrations.RemoveIndex(model_name="job", name="dbqueue_job_scheduled"),
        migrations.RemoveIndex(model_name="job", name="dbqueue_job_ended_badly"),
    ]

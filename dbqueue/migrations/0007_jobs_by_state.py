from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dbqueue", "0006_console_at_size"),
    ]

    operations = [
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
    ]

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dbqueue", "0008_jobs_by_state_only"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                fields=["after_id"],
                condition=models.Q(status="CANCELLED", held=True, allow_failure=True),
                name="dbqueue_job_early",
            ),
        ),
    ]

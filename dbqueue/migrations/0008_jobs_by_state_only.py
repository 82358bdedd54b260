from django.db import migrations


class Migration(migrations.Migration):
    # Apart from 0007: a worker that waits for the table there has locked rows that this would wait for.
    dependencies = [
        ("dbqueue", "0007_jobs_by_state"),
    ]

    operations = [
        migrations.RemoveIndex(model_name="job", name="dbqueue_job_scheduled"),
        migrations.RemoveIndex(model_name="job", name="dbqueue_job_ended_badly"),
    ]

"""Tasks for Celery whose messages are files: there is no broker to start.

celery -A examples.recipes.celery_tasks call examples.recipes.celery_tasks.greet --args '["you"]'
"""

import os
import time
from pathlib import Path

from celery import Celery
from celery.signals import worker_ready

from sidecar.worker import ready

FOLDER = Path(os.environ.get("TASKS", "/tmp/tasks"))
for each in (FOLDER, FOLDER / "control"):
    each.mkdir(exist_ok=True)

app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER),
    "data_folder_out": str(FOLDER),
    "control_folder": str(FOLDER / "control"),
}
# What a worker has taken and not begun is begun by nobody once it leaves.
app.conf.worker_prefetch_multiplier = 1


@worker_ready.connect
def say_so(**_: object) -> None:
    """With --ready notify: the worker takes tasks from now on."""
    ready()


@app.task
def greet(name: str) -> None:
    """Take a while, and leave a file."""
    time.sleep(0.2)
    (FOLDER / f"greeted-{name}").touch()

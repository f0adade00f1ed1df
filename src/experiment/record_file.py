"""The file ``run.json`` of a run that is open: two threads write what they know into it."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.experiment.run_folder import RunRecord


class RecordFile:
    """The record of an open run. Every change is in the run's folder when it returns."""

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self._folder, self._record = folder, record
        self._lock = threading.Lock()

    @property
    def record(self) -> RunRecord:
        """What is known of the run."""
        return self._record

    def update(self, **changes: Any) -> None:
        """Change fields of the record. Raises OSError."""
        with self._lock:
            self._record = replace(self._record, **changes)
            self._record.write(self._folder)

    def opened(self, experiment_id: str, run_id: str) -> None:
        """Keep the ids that MLflow has given the run. Called in the tracker's thread."""
        with self._lock:
            if self._record.status == "RUNNING":  # afterwards the folder may have another owner
                self._record = replace(self._record, experiment_id=experiment_id, run_id=run_id)
                self._record.write(self._folder)

"""A mirror that ends itself at a chosen call of MLflow, in the place of a sound one.

``python -m tests.torture.faulty_mirror FAULT OUTPUTS COUNTS`` counts the calls, too.
"""

import json
import sys
from pathlib import Path

from src.tracking.mirror import main
from src.tracking.store import import_mlflow
from tests.torture.faulty import Fault, Injector

if __name__ == "__main__":
    fault, outputs, counts = sys.argv[1:]
    import_mlflow()
    injector = Injector(Fault(**json.loads(fault)), Path(outputs))
    injector.install_in_mirror()
    main()
    Path(counts).write_text(json.dumps(injector.counts))

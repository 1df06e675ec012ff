"""The first process of a run's pod: what ``prefect flow-run execute`` does, with Python started once instead of thrice.

    PREFECT__FLOW_RUN_ID=... python -m infra.kubernetes.execute

Prefect's command watches over its run: it hands SIGTERM on as another start of the run, and tells hooks of a cancel.
The run itself is in processes of its own, one after the other, each of which imports Prefect anew: a second of
processor time each. Here the engine is a fork of the watching process; everything else, and above all what SIGTERM
means, is Prefect's command as it is. Two things differ: the engine runs the deployment's pull steps itself, as it does
when Prefect's process worker is told a command, and hooks run in the watching process.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Import Prefect, then run."""
    gc.disable()  # to look for garbage in what is being imported takes an eighth of the time, and finds little
    from infra.kubernetes.watched_engine import execute

    execute()


if __name__ == "__main__":
    main()

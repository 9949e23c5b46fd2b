"""What other libraries say while a command runs: set here, and nowhere else."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence Lightning's advice on devices, workers and its own features, what huggingface_hub says of each
    attempt (the error tells the reason of the last), and what libraries say to each other of names that they
    will drop."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # which it sets itself when imported
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")

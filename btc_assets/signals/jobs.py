"""Jobs of this room."""

from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import AssetJob, SlicedJobs, define_job, define_sliced_jobs
from btc_assets.signals.keys import EMBEDDINGS_HISTORY, EVALUATION, FOLLOWERS, INDEXES, MODEL, SLICE_FEATURES_HISTORY


def rebuild_signals_jobs(deployment: Deployment) -> SlicedJobs:
    """The jobs `rebuild_signals` and `rebuild_signals_history`."""
    return define_sliced_jobs(
        "rebuild_signals",
        FOLLOWERS,
        [SLICE_FEATURES_HISTORY, EMBEDDINGS_HISTORY],
        "Rebuild the features and embeddings of a range of slices from their ticks.",
        deployment.partitions,
    )


def train_job() -> AssetJob:
    """The job `train`."""
    return define_job("train", [MODEL], "Train an encoder on the features and bars that are stored.")


def evaluate_job() -> AssetJob:
    """The job `evaluate`."""
    return define_job("evaluate", [EVALUATION], "Compare forecasts from similar slices with simpler forecasts.")


def maintain_indexes_job() -> AssetJob:
    """The job `care_for_indexes`."""
    return define_job(
        "care_for_indexes",
        [INDEXES],
        "Measure the indexes on embeddings, and rebuild those whose recall fell or whose vectors grew by half.",
    )

"""Hydra's way in for plugins: the launchers of `pitome.runs.launchers`, where Hydra looks for them."""

from pitome.runs import launchers


class Joblib(launchers.Joblib):
    """hydra/launcher=joblib"""


class SubmititLocal(launchers.SubmititLocal):
    """hydra/launcher=submitit_local"""


class SubmititSlurm(launchers.SubmititSlurm):
    """hydra/launcher=submitit_slurm"""


class Ray(launchers.Ray):
    """hydra/launcher=ray"""

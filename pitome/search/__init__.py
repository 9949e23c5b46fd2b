"""Searching for the schedule, and the options, with which a method changes a model's outputs least."""

"""Scoring a predictor on a data set."""

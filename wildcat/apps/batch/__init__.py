"""Prediction for millions of images on Ray."""

"""Keeps runs in MLflow. The one part that speaks to it."""

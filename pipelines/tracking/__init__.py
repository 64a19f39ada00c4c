"""MLflow runs and the model registry; the only folder that imports mlflow."""

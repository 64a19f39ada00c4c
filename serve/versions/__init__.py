"""Which model answers: traffic, canary, loaded models, rollout."""

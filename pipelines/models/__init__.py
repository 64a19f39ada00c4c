"""A trained model by the name that a person gives: checkpoint, registry, weights of others."""

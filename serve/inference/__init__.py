"""Images -> classes: classifier, batching, decoding threads, export."""

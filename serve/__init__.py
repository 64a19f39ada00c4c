"""The endpoint: a checkpoint as batched inference behind HTTP.

serve/inference/classifier.py answers images, serve/inference/batching.py fills its batches, serve/api/application.py is
the HTTP interface as a FastAPI application, app.py runs it on Ray Serve; only that file imports ray.
"""

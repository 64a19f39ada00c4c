"""The endpoint: a checkpoint as batched inference behind HTTP.

classifier.py answers images, batching.py fills its batches, endpoint.py is the HTTP interface as a FastAPI
application, app.py runs it on Ray Serve; only that file imports ray.
"""

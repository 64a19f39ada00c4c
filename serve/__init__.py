"""The endpoint: a checkpoint as batched inference behind HTTP.

inference/ computes an image's classes, versions/ chooses the model that does, api/ is the HTTP interface as a FastAPI
application, app.py runs it on Ray Serve, deployment.py brings it to a cluster, haproxy/ is what stands before it.
"""

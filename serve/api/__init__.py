"""The HTTP interface: /v1, /v2, pages, request bodies, middleware, clients."""

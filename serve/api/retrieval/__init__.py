"""Search by image: the route and its part of the page."""

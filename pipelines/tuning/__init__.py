"""Many runs by Ray Tune: the paper's sweeps and the search for recipes."""

"""What a policy costs and saves: the real policy and the real forecast, on weeks of many machines."""

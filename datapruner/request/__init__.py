"""What a run is asked to do, checked once, whichever way it was asked."""

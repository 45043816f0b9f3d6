"""One model, served over HTTP."""

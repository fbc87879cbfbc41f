"""Training by steps that the network brings along, each with a loss and a trained part of its own."""

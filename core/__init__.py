"""The ground everything stands on: errors, files, the shared types, images, and the network graph."""

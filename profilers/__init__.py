"""From an artifact or a layer table, and a device, to a measurement."""

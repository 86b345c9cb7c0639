"""Any space with the width and the depth of its networks as two slots more."""

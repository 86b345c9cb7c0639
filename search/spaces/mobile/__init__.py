"""The mobile search space: stages of MBConv blocks; kernel, expansion, depth and width are chosen."""

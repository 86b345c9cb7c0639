"""The DARTS search space (Liu, Simonyan, Yang, ICLR 2019): its rules, its genotypes, its networks."""

"""Search where an accuracy is asked for, one network at a time, rather than learnt by a supernet."""

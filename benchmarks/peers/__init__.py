"""A round of Federated Averaging, Laconic's and other frameworks', side by side."""

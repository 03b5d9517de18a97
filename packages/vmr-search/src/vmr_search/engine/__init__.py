"""Engines that hold the vectors of a corpus: an exact scan, LanceDB, Qdrant; all behind one interface."""

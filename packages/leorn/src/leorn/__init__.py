"""Language-enhanced Object Reasoning Networks (LEORN): moments from objects, language and a 2D map of proposals."""

"""Objects of every frame, as a detector gives them: files, layouts, the store, those of Shapes."""

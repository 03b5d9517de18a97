"""Feature files: stores, backends, manifests, pooling, writing. Damage is a `UserError` that says where."""

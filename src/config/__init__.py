"""From YAML to typed objects, checked before anything starts."""

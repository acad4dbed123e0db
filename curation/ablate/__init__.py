"""Does a rule, or a choice of model or method, help? The same small training with and without it."""

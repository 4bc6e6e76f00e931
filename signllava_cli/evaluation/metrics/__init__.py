"""The metrics: of translations, of yes/no answers and of context-bound clips; and how each dataset splits words."""

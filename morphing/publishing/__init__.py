"""A winner on the Hub: its model card, its evaluation results and the push."""
